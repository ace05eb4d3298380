"""Check that a connection carries only messages of one sender, who is a peer.

A sender outside the membership is accepted only while no leader is known. A server that
joins or lags behind must take entries and snapshots from a leader that its membership
does not contain, and its vote may be needed. A cluster with a leader needs no outsider.

Source: Raft dissertation §4.1, §4.2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txraft.core.configuration import Configuration
from txraft.core.messages import (
    AnyRequest,
    AppendEntriesRequest,
    ForwardRequest,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.errors import ProtocolError
from txraft.transport.identity import Identity, PeerNames

_SHOWN_CHARACTERS = 80


class Members(Protocol):
    """The part of `Raft` that knows the members of the cluster and its leader."""

    @property
    def address(self) -> str:
        """This node's address."""

    @property
    def configuration(self) -> Configuration:
        """The membership in force."""

    @property
    def leader(self) -> str | None:
        """The leader's address, None when none is known."""

    @property
    def last_contact(self) -> float | None:
        """The time of the last message from the leader; on the leader, now."""


class IdentityCheck:
    """Checks senders against their certificates and the membership of *members*.

    A leader counts as alive for *patience* seconds of the clock *now*.
    """

    def __init__(
        self,
        names: PeerNames,
        members: Members,
        now: Callable[[], float],
        patience: float,
    ) -> None:
        self._names = names
        self._members = members
        self._now = now
        self._patience = patience

    def check(self, sender: str, identity: Identity | None) -> None:
        """Check that *identity*, proved by a connection, may send as *sender*.

        Raises: ProtocolError
        """
        members = self._members
        if identity is None:
            raise ProtocolError("it has no certificate")
        if sender == members.address:
            raise ProtocolError(f"it speaks as this node itself, {sender}")
        try:
            name = self._names.name_of(sender)
        except ValueError:
            raise ProtocolError(f"it speaks as {shown(sender)}, no address") from None
        if not identity.is_named(name):
            raise ProtocolError(
                f"its certificate is for {identity}, but it speaks as {shown(sender)}, "
                f"whose certificate is for {shown(name)}"
            )
        if members.configuration.server(sender) is None:
            self._check_stranger(sender)

    def sender_named(self, identity: Identity | None) -> str:
        """Return the address of the member with this *identity*.

        Raises: ProtocolError
        """
        for address in self._members.configuration.addresses:
            if identity and identity.is_named(self._names.name_of(address)):
                return address
        raise ProtocolError(f"its certificate is for {identity}, who is no member")

    def _check_stranger(self, sender: str) -> None:
        members = self._members
        # The leader itself may be outside the membership in force here: the entry that
        # adds it comes from it.
        leader, heard = members.leader, members.last_contact
        if leader is None or heard is None or leader == sender:
            return
        if self._now() - heard < self._patience:
            raise ProtocolError(f"it speaks as {shown(sender)}, which is no member")


def claimed_sender(request: AnyRequest) -> str | None:
    """Return the address of the sender that *request* names, None without one.

    Raises: ProtocolError when it names two.
    """
    match request:
        case AppendEntriesRequest() | InstallSnapshotRequest():
            sender = request.leader
        case RequestVoteRequest() | RequestPreVoteRequest():
            sender = request.candidate
        case TimeoutNowRequest() | ForwardRequest():
            sender = ""
    address = request.header.address
    if address and sender and address != sender:
        raise ProtocolError(
            f"a message names two senders, {shown(sender)} and {shown(address)}"
        )
    return sender or address or None


def shown(text: str) -> str:
    """Quote text of a peer so that it is short and cannot forge lines of a log."""
    return repr(text[:_SHOWN_CHARACTERS])
