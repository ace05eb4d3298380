"""Admission: ask the server at an address who it is, before it becomes a member.

A server that is added before it answers, or before it has the log, counts for the
quorum and cannot help to reach it. So it is probed first, and at protocol version 3 it
gets its vote only once it has nearly all of the log.

The probe is AppendEntries of term 0, which is no leader's: whoever speaks the protocol
refuses it, and nothing changes there. Our servers answer it with all that their headers
can hold: their cluster, incarnation, id and address.

Source: Raft dissertation §4.1, §4.2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.python.failure import Failure

from txraft.core.configuration import Configuration
from txraft.core.messages import AppendEntriesResponse
from txraft.errors import NotAdmitted, TransportError

CAUGHT_UP_ENTRIES = 250
"""So many entries a nonvoter may lack to become a voter: it has them in a moment."""


@dataclass(frozen=True, slots=True)
class Admission:
    """How far a server is on its way to be a voter; *behind* in entries."""

    is_voter: bool
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """What the server at *address* has told of itself.

    *own_address* and *id* are what it calls itself, *last_index* is where its log ends,
    *level* is up to which level it understands the state machine. One of another
    implementation tells none of *own_address*, *cluster*, *incarnation* and *level*,
    nor does one of ours at protocol version 0: `is_foreign`.
    """

    address: str
    protocol_version: int | None
    own_address: str | None
    id: str | None
    cluster: bytes | None
    incarnation: bytes | None
    level: int | None
    term: int
    last_index: int

    @property
    def is_foreign(self) -> bool:
        """Whether this is another implementation, of which no cluster is known."""
        return self.incarnation is None


def probed(address: str, answer: AppendEntriesResponse) -> Probed:
    """Read the *answer* of the server at *address*."""
    header = answer.header
    return Probed(
        address,
        protocol_version=header.protocol_version,
        own_address=header.address or None,
        id=header.id or None,
        cluster=header.cluster,
        incarnation=header.incarnation,
        level=header.level,
        term=answer.term,
        last_index=answer.last_log,
    )


def why_not(
    found: Probed, configuration: Configuration, cluster: bytes | None
) -> str | None:
    """Say why the server *found* should not be added to *cluster*, None if it may be.

    One that was a member before is welcome, with what it holds.
    """
    address, name = found.address, found.own_address
    if name not in (None, address):
        if configuration.server(name) is not None:
            return f"the server at {address} is {name}, which is a member already"
        return (
            f"the server at {address} calls itself {name}, by which the others must "
            f"reach it: add {name}"
        )
    if found.is_foreign:
        return None
    if found.cluster is None and found.last_index:
        return (
            f"{address} has a log of its own and no cluster yet: it was started with "
            "peers. Stop it, take its data directory away and start it with join: true"
        )
    if cluster is not None and found.cluster not in (None, cluster):
        return (
            f"{address} is in another cluster: stop it, take its data directory away "
            "and start it with join: true"
        )
    return None


def refuse_silent(address: str) -> Callable[[Failure], Admission]:
    """Make the errback that refuses the server at *address*, which did not answer."""

    def refuse(failure: Failure) -> Admission:
        failure.trap(TransportError)
        raise NotAdmitted(
            f"nobody answers as a peer at {address} ({failure.getErrorMessage()}): "
            "start the server there first, with join: true"
        )

    return refuse
