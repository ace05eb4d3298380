"""Every error that txraft raises or fails a Deferred with: one class per error.

Names are hashicorp/raft's without `Err`. An error that ends an `apply` says through
`outcome` whether the entry can still commit: that decides whether a caller may
simply try again.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Outcome = Literal["not-applied", "unknown"]


class RaftError(Exception):
    """The base of every error of this package.

    `outcome` tells a caller of `apply` what became of the entry: `not-applied`
    (it was not and will not be applied) or `unknown` (it may still commit).
    """

    outcome: ClassVar[Outcome] = "not-applied"


class ConfigError(RaftError):
    """A configuration is refused; `problems` holds one sentence for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NotLeader(RaftError):
    """This node is not the leader; `leader` is the leader's address, if known."""

    def __init__(self, leader: str | None = None) -> None:
        hint = f"the leader is {leader}" if leader else "no leader is known"
        super().__init__(f"node is not the leader; {hint}")
        self.leader = leader


class NodeIsLeader(RaftError):
    """The operation is refused because this node is the leader."""


class LeadershipLost(RaftError):
    """Leadership ended while an entry was being committed: it may still commit."""

    outcome: ClassVar[Outcome] = "unknown"

    def __init__(self, leader: str | None = None) -> None:
        super().__init__("leadership lost while committing log")
        self.leader = leader


class OutcomeUnknown(RaftError):
    """No outcome of a command came in time, or at all: it may have committed.

    The message says how far it was known to be.
    """

    outcome: ClassVar[Outcome] = "unknown"


class ReadTimedOut(RaftError):
    """What a read has to contain was not applied here in time."""


class RaftShutdown(RaftError):
    """The node was already shut down when the call was made: nothing was done."""

    def __init__(self, reason: str = "") -> None:
        suffix = f": {reason}" if reason else ""
        super().__init__(f"raft is already shutdown{suffix}")


class ShutdownWhileCommitting(LeadershipLost):
    """The node shut down while an entry was being committed: it may still commit.

    Its `__cause__` is the *reason*, if the node has not stopped in order.
    """

    def __init__(self, reason: RaftShutdown | None = None) -> None:
        super().__init__()
        self.args = (
            "this node stopped before the outcome was known; it may still commit",
        )
        self.__cause__ = reason


class EnqueueTimeout(RaftError):
    """The entry waited too long to be accepted; it was never appended."""

    def __init__(self) -> None:
        super().__init__("timed out enqueuing operation")


class QueueFull(RaftError):
    """Too many bytes or entries are pending; this entry was not appended."""


class EntryTooLarge(RaftError):
    """The entry's data is larger than `max_entry_bytes`; it was not appended."""


class KnownPeer(RaftError):
    """The peer to add is a member already."""


class UnknownPeer(RaftError):
    """The peer to remove is not a member."""


class ConfigurationRefused(RaftError):
    """A membership change is not a legal single step from the one in force."""


class SkipRefused(RaftError):
    """The entry may not be skipped; the message says why, and what to do instead."""


class NotAdmitted(ConfigurationRefused):
    """A server was not added: it does not answer, or should not become a member.

    `Raft.add_peer` and its like add a server without this check.
    """


class TransferInProgress(RaftError):
    """Leadership is being transferred; no proposal is accepted until that ends."""


class TransferFailed(RaftError):
    """Leadership was not transferred; the message says why."""


class NothingNewToSnapshot(RaftError):
    """No command or barrier was applied since the newest snapshot."""

    def __init__(self) -> None:
        super().__init__("nothing new to snapshot")


class SnapshotFailed(RaftError):
    """A snapshot could not be taken; the node goes on without it."""


class ThreadRefused(RaftError):
    """The system refused a thread that the node needs; the message names it."""


class WrongThread(RaftError, RuntimeError):
    """A method was called on another thread than the reactor's; nothing was done."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"{method} was called on another thread than the reactor's: use "
            "reactor.callFromThread, or blockingCallFromThread to wait for the outcome"
        )


class ContractBroken(RaftError, TypeError):
    """An object given to txraft breaks the contract of its interface.

    The message names the object, the method and the rule that it breaks.
    """


class ApplicationError(RaftError):
    """Raised by an FSM to refuse a command, deterministically, on every replica.

    It reaches the caller of `apply` on the leader and nobody else. The command is
    part of the log, so the outcome is known: it was applied and refused.
    """


class CommandFailed(ApplicationError):
    """A command of a replicated object raised; what it raised is the `__cause__`.

    It raised on every member, and what it had changed until then was undone on each.
    """


class UnknownCommand(RaftError):
    """An entry calls what this version of a replicated object does not have.

    It has no such method, or the method does not take these arguments. The node stops:
    another version of the application knows what the call does.
    """


class CannotTravel(RaftError, TypeError):
    """A value is of no kind that replicated objects keep, take and return.

    The message names the value, and what to use instead of it.
    """


class OnlyInCommands(RaftError, RuntimeError):
    """The state of a replicated object was changed outside a command of it.

    This member alone would have the change. Nothing was changed.
    """


class CallRefused(RaftError, RuntimeError):
    """A method of a replicated object was called where it cannot be.

    Either the object is on no node, or a command or query is running. The message says
    which, and what to call instead.
    """


class NodeFailed(RaftShutdown):
    """The node stopped itself; the message says what failed and what to do."""


class UpgradeNeeded(RaftError):
    """The cluster uses a level of the state machine that this version does not know."""

    def __init__(self, used: int, known: int) -> None:
        super().__init__(
            f"upgrade this node: the cluster uses level {used}, "
            f"this version knows {known}"
        )
        self.used = used
        self.known = known


class NodeRemoved(RaftShutdown):
    """The node stopped because its removal from the cluster was committed."""

    def __init__(self) -> None:
        super().__init__("this node was removed from the cluster")


class LogNotFound(RaftError):
    """The log holds no entry at this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"log not found: no entry at index {index}")
        self.index = index


class StorageError(RaftError):
    """What is on disk cannot be used; the message names file and offset."""


class DataCorrupted(StorageError):
    """Damage on disk that is not a torn last write: the start is refused."""


class FormatTooNew(StorageError):
    """A file was written in a format this version does not know."""


class WrongNode(StorageError):
    """A file belongs to another node."""


class WrongDirectory(StorageError):
    """The log and the state file of a directory do not belong together."""


class WrongCluster(StorageError):
    """A snapshot belongs to another cluster than the node's term and vote."""


class WrongApplication(StorageError):
    """The data directory belongs to another application than the state machine."""


class DirectoryLocked(StorageError):
    """Another process uses the data directory."""


class TransportError(RaftError):
    """A call to a peer failed before its answer was read."""


class TransportShutdown(TransportError):
    """The transport is closed."""

    def __init__(self) -> None:
        super().__init__("transport shutdown")


class PipelineShutdown(TransportError):
    """The append pipeline is closed; requests in flight on it got no answer."""

    def __init__(self) -> None:
        super().__init__("append pipeline closed")


class PipelineReplicationNotSupported(TransportError):
    """The transport has no pipelines; single requests are used instead."""


class ConnectionFailed(TransportError):
    """The peer could not be reached."""


class ConnectionClosedByPeer(TransportError):
    """The peer closed the connection instead of answering."""


class CallTimedOut(TransportError):
    """The peer did not answer in time."""


class RemoteError(TransportError):
    """The peer answered with an error text: for people, not to be parsed."""


class ProtocolError(TransportError):
    """Bytes from a peer break the protocol or a limit; the connection is closed."""


class NotAdvertisable(TransportError):
    """Other nodes cannot dial the listening address: another must be advertised."""
