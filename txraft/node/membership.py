"""Membership entries, in the types that each protocol version writes.

| version | addition            | removal             |
|---------|---------------------|---------------------|
| 0, 1    | 2, the whole list   | 3, the whole list   |
| 2, 3    | 5                   | 5                   |

A type-3 entry founding or growing a membership would pass at old peers for their
own removal. Who founds a cluster is told apart from who waits to be added here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.errors import (
    ConfigurationRefused,
    KnownPeer,
    NotAdmitted,
    RaftError,
    TransportError,
    UnknownPeer,
)
from txraft.node.admission import Probed, probed, why_not
from txraft.node.pending import Change, Proposal

if TYPE_CHECKING:
    from txraft.node.parts import Parts
    from txraft.node.shell import Shell

FIRST_VERSION_WITH_IDS = 3
FIRST_VERSION_WITH_CONFIGURATIONS = 2


CAUGHT_UP_ENTRIES = 250
"""So many entries a nonvoter may lack to become a voter: it has them in a moment."""


@dataclass(frozen=True, slots=True)
class Admission:
    """How far a server is on its way to be a voter; *behind* in entries."""

    is_voter: bool
    behind: int = 0


class Membership:
    """The part of `Raft` that changes who is a member, one server at a time.

    Every change is a Deferred of the index of its entry, once that is committed. It
    fails with NotLeader, QueueFull or RaftShutdown, with ConfigurationRefused for
    what is no legal single step, and with LeadershipLost when it may still commit.
    A change waits until the one before it is committed. Cancelling withdraws it while
    it waits, and afterwards only stops the wait.
    """

    _parts: Parts

    def _leading(self) -> Shell:
        raise NotImplementedError

    def _check_thread(self, method: str) -> None:
        raise NotImplementedError

    def add_peer(self, address: str) -> Deferred[int]:
        """Make the server at *address* a voter. It starts with `join`, or empty.

        Returns: as every change. It also fails with KnownPeer.
        """
        return self.add_voter(address, address)

    def probe_peer(self, address: str) -> Deferred[Probed]:
        """Ask who is at *address*, member or not; nothing changes there.

        Returns: a Deferred of what it tells. It fails with a TransportError when nobody
            there answers as a peer in time, and with NotLeader or RaftShutdown.
        """
        try:
            asked = self._leading().outbox.probe(address)
        except RaftError as error:
            return fail(error)
        return asked.addCallback(lambda answer: probed(address, answer))

    def admit_peer(self, address: str) -> Deferred[Admission]:
        """Make the server at *address* a voter, but only if that costs no quorum.

        It is probed first. At protocol version 3 it becomes a nonvoter, under the id
        that it tells, and a voter once it has nearly all of the log: call this again
        until it is.

        Returns: a Deferred of how far it is. It fails as every change, and with
            NotAdmitted when nobody answers there, or one who belongs elsewhere.
        Source: Raft dissertation §4.2.1.
        """
        try:
            shell = self._leading()
        except RaftError as error:
            return fail(error)
        server = shell.consensus.configuration.server(address)
        if server is None:
            return self.probe_peer(address).addCallbacks(self._admit, _nobody(address))
        if server.suffrage is Suffrage.VOTER:
            return succeed(Admission(True))
        behind = shell.consensus.entries_behind(address)
        if behind > CAUGHT_UP_ENTRIES or shell.consensus.silence_of(address):
            return succeed(Admission(False, behind))
        promoted = self.add_voter(server.id, address)
        return promoted.addCallback(lambda _: Admission(True))

    def _admit(self, found: Probed) -> Deferred[Admission]:
        shell, address = self._leading(), found.address
        consensus = shell.consensus
        reason = why_not(found, consensus.configuration, consensus.cluster)
        if reason is not None:
            raise NotAdmitted(reason)
        if self._version < FIRST_VERSION_WITH_IDS:
            return self.add_peer(address).addCallback(lambda _: Admission(True))
        added = self.add_nonvoter(found.id or address, address)
        return added.addCallback(
            lambda _: Admission(False, consensus.entries_behind(address))
        )

    def remove_peer(self, address: str) -> Deferred[int]:
        """Remove the member at *address*, which may be this one.

        Returns: as every change. It also fails with UnknownPeer.
        """

        def make(configuration: Configuration) -> Entry:
            if configuration.server(address) is None:
                raise UnknownPeer(f"{address} is not a member")
            return removed(configuration, address, self._version)

        return self._change(make)

    def add_voter(self, id: str, address: str) -> Deferred[int]:
        """Make the server *id* at *address* a voter, new or a nonvoter so far.

        Returns: as every change. It also fails with KnownPeer, and with
            ConfigurationRefused when the server answers that it understands less of
            the state machine than is active.
        """
        server = Server(id, address, Suffrage.VOTER)

        def make(configuration: Configuration) -> Entry:
            if configuration.is_voter(address):
                raise KnownPeer(f"{address} is a member already")
            return self._with(configuration, server)

        return self._change(make, address)

    def add_nonvoter(self, id: str, address: str) -> Deferred[int]:
        """Make the server *id* at *address* a member that gets entries but no vote.

        Returns: as every change. It also fails with KnownPeer, and with
            ConfigurationRefused below protocol version 3, or as for `add_voter`.
        """
        server = Server(id, address, Suffrage.NONVOTER)

        def make(configuration: Configuration) -> Entry:
            self._check_nonvoters_exist()
            if configuration.server(address) is not None:
                raise KnownPeer(f"{address} is a member already")
            return self._with(configuration, server)

        return self._change(make, address)

    def demote_voter(self, id: str) -> Deferred[int]:
        """Take the vote of the server *id*, which may be this one.

        Returns: as every change. It also fails with UnknownPeer, and with
            ConfigurationRefused below protocol version 3.
        """

        def make(configuration: Configuration) -> Entry:
            self._check_nonvoters_exist()
            address = _address_of(configuration, id)
            if not configuration.is_voter(address):
                raise ConfigurationRefused(f"server {id} has no vote")
            return added(
                configuration, Server(id, address, Suffrage.NONVOTER), self._version
            )

        return self._change(make)

    def remove_server(self, id: str) -> Deferred[int]:
        """Remove the server *id*, which may be this one.

        Returns: as every change. It also fails with UnknownPeer.
        """

        def make(configuration: Configuration) -> Entry:
            return removed(configuration, _address_of(configuration, id), self._version)

        return self._change(make)

    @property
    def _version(self) -> int:
        return self._parts.config.protocol_version

    def _with(self, configuration: Configuration, server: Server) -> Entry:
        """Make the entry that adds *server*, whose names no other member may have."""
        if self._version < FIRST_VERSION_WITH_IDS:
            _check_version_0_to_2(server)
        for known in configuration.servers:
            same_id = known.id == server.id
            same_address = known.address == server.address
            is_renamed = same_address and not same_id
            is_moved = same_id and not same_address
            if is_renamed or (is_moved and known.suffrage is Suffrage.VOTER):
                raise ConfigurationRefused(
                    f"{known.address} is server {known.id}; remove that one first"
                )
        return added(configuration, server, self._version)

    def _check_nonvoters_exist(self) -> None:
        if self._version < FIRST_VERSION_WITH_IDS:
            raise ConfigurationRefused(
                f"nonvoters need protocol version {FIRST_VERSION_WITH_IDS}, "
                f"this is {self._version}"
            )

    def _change(
        self, make: Callable[[Configuration], Entry], newcomer: str | None = None
    ) -> Deferred[int]:
        self._check_thread("add_voter, or a change like it,")
        proposal = Proposal(Entry(0, 0, LogType.CONFIGURATION), None)
        try:
            self._leading().change(Change(make, proposal, newcomer))
        except RaftError as error:
            return fail(error)
        return proposal.deferred.addCallback(lambda result: result.index)


def _nobody(address: str) -> Callable[[Failure], Admission]:
    """Make what refuses the server at *address*, who did not answer."""

    def refuse(failure: Failure) -> Admission:
        failure.trap(TransportError)
        raise NotAdmitted(
            f"nobody answers as a peer at {address} ({failure.getErrorMessage()}): "
            "start the server there first, with join: true"
        )

    return refuse


def _address_of(configuration: Configuration, id: str) -> str:
    for server in configuration.servers:
        if server.id == id:
            return server.address
    raise UnknownPeer(f"there is no server {id}")


def added(configuration: Configuration, server: Server, version: int) -> Entry:
    """Make the entry that adds *server*, or changes it."""
    kind = (
        LogType.ADD_PEER
        if version < FIRST_VERSION_WITH_CONFIGURATIONS
        else LogType.CONFIGURATION
    )
    return Entry(0, 0, kind, configuration=configuration.with_server(server))


def removed(configuration: Configuration, address: str, version: int) -> Entry:
    """Make the entry that removes the server at *address*."""
    kind = (
        LogType.REMOVE_PEER
        if version < FIRST_VERSION_WITH_CONFIGURATIONS
        else LogType.CONFIGURATION
    )
    return Entry(0, 0, kind, configuration=configuration.without(address))


def founders(
    peers: Iterable[Server], address: str, server_id: str, version: int
) -> Configuration:
    """Make the membership that *peers* found, of which the one at *address* is us.

    It is in order of addresses, so that all founders make the same; empty without
    peers. A server that founds a cluster alone may be listed by its address.
    Raises: ConfigurationRefused, if there are peers and we are not one of them, if we
        are listed under another id, or if ids are used below protocol version 3.
    """
    by_address = {peer.address: peer for peer in peers}
    if not by_address:
        return Configuration()
    own = by_address.get(address)
    if own is None:
        listed = ", ".join(sorted(by_address))
        raise ConfigurationRefused(f"{address} is not among its peers: {listed}")
    is_alone = len(by_address) == 1 and own.id == address
    if own.id != server_id and not is_alone:
        raise ConfigurationRefused(
            f"{address} is listed as server {own.id}, but is server {server_id}: all "
            "founders must list the same ids, or one founds alone and adds the others"
        )
    by_address[address] = Server(server_id, address, own.suffrage)
    servers = tuple(by_address[a] for a in sorted(by_address))
    if version < FIRST_VERSION_WITH_IDS:
        for server in servers:
            _check_version_0_to_2(server)
    configuration = Configuration(servers)
    configuration.check()
    return configuration


def _check_version_0_to_2(server: Server) -> None:
    if server.id != server.address or server.suffrage is not Suffrage.VOTER:
        raise ConfigurationRefused(
            f"server {server.id} at {server.address}: ids and nonvoters need "
            f"protocol version {FIRST_VERSION_WITH_IDS}"
        )
