"""Forwarding: commands and reads on any member, by way of its leader.

    queued ──> sent ──> placed ──> outcome: the response of the state machine here
      ^  │      │ │        └── not applied here in time: unknown
      │  │      │ └── no answer: unknown, and nothing is sent again
      │  │      └── certainly not appended: queued again
      │  └── no leader in time: not applied
      └── or proposed here, while this node leads

All commands of a turn of the reactor are one message, and so are all reads that wait,
which ask one question. Answers leave a connection in the order of its requests, so
there is one for commands and one for reads: a read never waits for a commit.

The leader answers where a command stands in the log, once it is committed. With that
this node commits up to there itself, without waiting for the next message to followers,
and applies the entry: result and exception are those of its own state machine.

The rules:

1. What certainly was not appended is tried again until its deadline.
2. Once a byte may have left, a command is never sent again: without an answer its
   outcome is unknown.
3. A read shares only a question that was sent after it began.
4. Every wait ends at a deadline, and all that waits is bounded by
   `Config.max_pending_entries` and `max_pending_bytes`.

Source: Raft dissertation §6.2, §6.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.messages import (
    LEADER_FULL,
    NOT_APPENDED,
    TOO_LARGE,
    ForwardRequest,
    ForwardResponse,
    Place,
)
from txraft.errors import (
    EntryTooLarge,
    NodeFailed,
    NodeRemoved,
    NotLeader,
    OutcomeUnknown,
    QueueFull,
    RaftError,
    RaftShutdown,
    ReadTimedOut,
    RemoteError,
    ShutdownWhileCommitting,
    TransferInProgress,
)
from txraft.interfaces import (
    ForwardPipeline,
    LimitedTransport,
    Transport,
    WithForwarding,
)
from txraft.node.application import answer_of
from txraft.node.events import LeaderObservation, Observation, Observer
from txraft.node.pending import ApplyResult
from txraft.node.raft import Raft
from txraft.node.shell import Shell
from txraft.node.verifications import Batch, Verification, Verifications

MOST_COMMANDS = 1024
"""Commands in one message; fewer if the transport's limits on lists ask for it."""

MOST_MESSAGES = 32
"""Messages of commands on their way to one leader."""

MOST_BYTES = 4 << 20
"""Bytes of commands on their way to one leader: less than one connection may hold."""

MOST_QUESTIONS = 1
"""Questions for a read index on their way to one leader. With two, each would be for
half of the reads, and the leader would have twice the work for the same reads."""

FIRST_PAUSE = 0.02
"""Seconds before what a leader did not take is tried again."""

LONGEST_PAUSE = 0.5
"""What that grows to, doubling each time in a row."""

LEAST_PASSED = 1024
"""So many have an outcome before it pays to take their deadlines off the heap."""


class Command:
    """A command that somebody waits for until *deadline*, a time of the clock.

    `why` is what it fails with if it is not appended until then. `is_out` tells that it
    may be appended, and `index` where it is, once that is known.
    """

    __slots__ = ("data", "deadline", "deferred", "index", "is_out", "proposed", "why")

    def __init__(self, data: bytes, deadline: float, forwarder: Forwarder) -> None:
        self.data = data
        self.deadline = deadline
        self.deferred: Deferred[ApplyResult] = Deferred(
            lambda _: forwarder.cancelled(self)
        )
        self.why: RaftError | None = None
        self.is_out = False
        self.index = 0
        self.proposed: Deferred[ApplyResult] | None = None


@dataclass(slots=True, eq=False)
class Read(Verification):
    """A read that somebody waits for until *deadline*.

    `confirmed_index` is what has to be applied for it, once that is known.
    """

    deadline: float
    verified: Deferred[int] | None = None
    confirmed_index: int = 0


M = TypeVar("M")


class _Lane(Generic[M]):
    """One connection to the leader at *target*, and the messages under way on it.

    It is retired when another one leads: what is under way is waited for, and then it
    is closed.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.opening: Deferred[ForwardPipeline] | None = None
        self.pipeline: ForwardPipeline | None = None
        self.under_way: deque[M] = deque()
        self.retired = False

    @property
    def may_send(self) -> bool:
        """Whether a request would leave now."""
        return self.pipeline is not None and self.pipeline.is_open

    @property
    def is_broken(self) -> bool:
        """Whether it was opened and has ended."""
        return self.pipeline is not None and not self.pipeline.is_open

    def retire(self) -> None:
        """Close it once nothing is under way."""
        self.retired = True
        if self.opening is not None:
            self.opening.cancel()
        elif self.pipeline is not None and not self.under_way:
            self.pipeline.close()

    def close(self) -> None:
        """Close it now."""
        self.retired = True
        if self.opening is not None:
            self.opening.cancel()
        elif self.pipeline is not None:
            self.pipeline.close()


@dataclass(slots=True, eq=False)
class _Message:
    """Commands that left together, when *sent_at* was applied here."""

    commands: Sequence[Command]
    size: int
    sent_at: int


@dataclass(slots=True, eq=False)
class _Question:
    """Reads that share a question, which left at *asked_at*."""

    batch: Batch
    asked_at: float


class Forwarder:
    """Takes commands and reads on the member *raft*, whoever leads.

    It may be made before `Raft.start` and ends with the node. *transport* is the node's
    own; if it is not `WithForwarding`, only a leader takes them. Where the leader does
    not announce that it takes them, as a server of Go or of protocol version 0, both
    fail with NotLeader.

    Thread: reactor, as all of it.
    """

    log = Logger()

    def __init__(self, raft: Raft, transport: Transport, clock: IReactorTime) -> None:
        self._raft = raft
        self._transport = transport
        self._clock = clock
        self._shell: Shell | None = None
        # Commands that no leader has been sent, in order; all that have no outcome.
        self._queued: deque[Command] = deque()
        self._commands: dict[Command, None] = {}
        self._bytes = 0
        # Those whose entries a snapshot has overtaken, to be told in the next turn.
        self._overtaken: list[Command] = []
        # Reads that no question was asked for, and those that share one.
        self._unasked: list[Read] = []
        self._withdrawn = 0
        self._reads: Verifications | None = None
        # When the state here was known to have all that was committed; and the times
        # of questions whose index is not applied yet.
        self._covered_at = float("-inf")
        self._covering: deque[tuple[float, int]] = deque()
        self._lane: _Lane[_Message] | None = None
        self._read_lane: _Lane[_Question] | None = None
        self._retired: dict[_Lane[Any], None] = {}
        self._deadlines: list[tuple[float, int, Command | Read]] = []
        self._number = 0
        self._timer: IDelayedCall | None = None
        self._due: IDelayedCall | None = None
        self._pause = FIRST_PAUSE
        self._most_commands = MOST_COMMANDS
        if isinstance(transport, LimitedTransport):
            # The answer has two numbers for each command, in one list.
            longest = int(transport.limits.get("max_entries", 2 * MOST_COMMANDS))
            self._most_commands = max(1, min(MOST_COMMANDS, longest // 2))
        self._stopped = False
        raft.register_observer(Observer(self._leader_changed, _is_of_leader))
        raft.when_stopping().addCallback(self._stop)

    # Commands

    def apply(self, data: bytes, deadline: float) -> Deferred[ApplyResult]:
        """Replicate the command *data*, and apply it here as on every member.

        It waits for a leader, and for its outcome, until *deadline*, a time of the
        clock, or infinity. Cancelling withdraws it if it has not left; later it only
        detaches the waiter, and the command may commit.

        Returns: a Deferred of an ApplyResult, once the command is applied here. It
            fails, certainly never appended, with NotLeader when no leader took it in
            time, EnqueueTimeout, QueueFull, EntryTooLarge, TransferInProgress or
            RaftShutdown; with OutcomeUnknown, LeadershipLost or
            ShutdownWhileCommitting when it may commit; and with the ApplicationError
            that the state machine refused it with.
        Raises: TypeError, if *data* is not bytes.
        """
        self._raft._check_thread("apply")
        if not isinstance(data, bytes):
            raise TypeError(f"a command is bytes, not {type(data).__name__}")
        config = self._raft._parts.config
        if len(data) > config.max_entry_bytes:
            largest = config.max_entry_bytes
            return fail(EntryTooLarge(f"{len(data)} bytes; at most {largest} may be"))
        waiting = len(self._commands)
        too_many = waiting >= config.max_pending_entries
        if too_many or self._bytes + len(data) > config.max_pending_bytes:
            return fail(
                QueueFull(
                    f"{waiting} commands of {self._bytes} bytes wait for an outcome: "
                    f"max_pending_entries is {config.max_pending_entries}, "
                    f"max_pending_bytes {config.max_pending_bytes}"
                )
            )
        try:
            shell = self._running()
        except RaftShutdown as error:
            return fail(error)
        command = Command(data, deadline, self)
        self._commands[command] = None
        self._bytes += len(data)
        self._expect(command)
        if shell is not None and shell.consensus.is_leader:
            self._propose(command)
        else:
            self._enqueue(command)
        return command.deferred

    def _enqueue(self, command: Command) -> None:
        # Those that were cancelled leave the queue when there are too many of them:
        # without a leader nothing else takes them out.
        if len(self._queued) > 2 * len(self._commands) + LEAST_PASSED:
            self._queued = deque(c for c in self._queued if c in self._commands)
        self._queued.append(command)
        self._soon()

    def cancelled(self, command: Command) -> None:
        """Forget *command*, which nobody waits for any more."""
        # What is queued is passed over when its turn comes: it counts no more.
        if command.proposed is not None:
            command.proposed.cancel()
        self._forget(command)

    def _forget(self, command: Command) -> bool:
        """Let *command* count no more; tell whether it did."""
        if self._commands.pop(command, command) is not None:
            return False
        self._bytes -= len(command.data)
        if command.index and self._shell is not None:
            self._shell.awaited.forget(command.index)
        return True

    def _fail(self, command: Command, error: BaseException) -> None:
        if self._forget(command):
            command.deferred.errback(error)

    def _propose(self, command: Command) -> None:
        """Let this node, which leads, append *command*."""
        left: float | None = command.deadline - self._clock.seconds()
        if left == inf:
            left = None
        elif left is not None and left <= 0:
            return  # its deadline is about to be looked at
        command.is_out = True
        command.proposed = self._raft.apply(command.data, left)
        command.proposed.addCallbacks(
            self._proposal_applied,
            self._proposal_failed,
            callbackArgs=(command,),
            errbackArgs=(command,),
        )

    def _proposal_applied(self, result: ApplyResult, command: Command) -> None:
        command.proposed = None
        if self._forget(command):
            command.deferred.callback(result)

    def _proposal_failed(self, failure: Failure, command: Command) -> None:
        command.proposed = None
        if failure.check(CancelledError):
            return  # nobody waits any more
        # Certainly not appended; and another one may lead by now, or soon.
        if failure.check(NotLeader, TransferInProgress):
            assert isinstance(failure.value, RaftError)
            self._try_again([command], failure.value)
        else:
            self._fail(command, failure.value)  # type: ignore[arg-type]

    def _try_again(self, commands: Sequence[Command], why: RaftError) -> None:
        """Queue *commands* anew, before all others, but not at once."""
        for command in reversed(commands):
            if command in self._commands:
                command.is_out, command.why = False, why
                self._queued.appendleft(command)
        self._later()

    # Awaiting: entries that a leader has committed

    def _placed(self, command: Command, place: Place, shell: Shell) -> None:
        command.index = place[0]
        shell.awaited.wait(*place, _Placed(self, command))

    def applied(
        self, command: Command, index: int, term: int, response: object
    ) -> None:
        """Tell of the *response* of the state machine here to *command*."""
        command.index = 0  # not awaited any more
        if not self._forget(command):
            return
        if isinstance(response, RaftError | Failure):
            command.deferred.errback(response)
        else:
            command.deferred.callback(ApplyResult(index, term, response))

    def overtaken(self, command: Command) -> None:
        """Tell soon that the response to *command* is not known here."""
        command.index = 0
        # Not at once: this may be within a turn.
        self._overtaken.append(command)
        self._soon()

    # Reads

    def linearizable(self, deadline: float, max_stale: float = 0.0) -> Deferred[int]:
        """Wait until a read of the state here sees all that was committed before now.

        With *max_stale*, in seconds, what was committed that long ago is enough: as
        far as it is known, which it is from a question, and not from any message of
        the leader. Cancelling ends the wait.

        Returns: a Deferred of the applied index; read as soon as it fires. It fails
            with NotLeader when no leader has confirmed it until *deadline*, a time of
            the clock; with ReadTimedOut when what it has to see was not applied by
            then; and with QueueFull or RaftShutdown.
        Source: Raft dissertation §6.4.
        """
        self._raft._check_thread("linearizable")
        try:
            shell = self._running()
        except RaftShutdown as error:
            return fail(error)
        if shell is not None and max_stale > 0 and self._is_covered(shell, max_stale):
            return succeed(shell.applier.applied_index)
        most = self._raft._parts.config.max_pending_entries
        # Those that were withdrawn must not keep others out, or fill the memory.
        if self._waiting_reads >= most or self._withdrawn > LEAST_PASSED:
            self._unasked = [r for r in self._unasked if not r.deferred.called]
            self._withdrawn = 0
        if self._waiting_reads >= most:
            return fail(QueueFull(f"{most} reads wait, which is max_pending_entries"))
        read = Read(Deferred(lambda _: self._withdraw(read)), True, deadline)
        self._expect(read)
        if shell is not None and shell.consensus.is_leader:
            self._read_here(read)
        else:
            self._unasked.append(read)
            self._soon()
        return read.deferred

    @property
    def _waiting_reads(self) -> int:
        return len(self._unasked) + (0 if self._reads is None else len(self._reads))

    def _is_covered(self, shell: Shell, max_stale: float) -> bool:
        """Tell whether all that was committed *max_stale* seconds ago is applied."""
        applied, covering = shell.applier.applied_index, self._covering
        while covering and covering[0][1] <= applied:
            self._covered_at = max(self._covered_at, covering.popleft()[0])
        return self._clock.seconds() - self._covered_at <= max_stale

    def _withdraw(self, read: Read) -> None:
        self._withdrawn += 1
        if read.verified is not None:
            read.verified.cancel()
        if self._reads is not None:
            self._reads.withdraw(read)

    def _read_here(self, read: Read) -> None:
        """Have this node, which leads, confirm *read*."""
        asked_at = self._clock.seconds()
        read.verified = self._raft.linearizable()
        read.verified.addCallbacks(
            self._read_confirmed,
            self._read_failed,
            callbackArgs=(read, asked_at),
            errbackArgs=(read,),
        )

    def _read_confirmed(self, index: int, read: Read, asked_at: float) -> None:
        read.verified = None
        self._covered_at = max(self._covered_at, asked_at)
        if not read.deferred.called:
            read.deferred.callback(index)

    def _read_failed(self, failure: Failure, read: Read) -> None:
        read.verified = None
        if read.deferred.called or failure.check(CancelledError):
            return
        if failure.check(NotLeader):
            self._unasked.append(read)
            self._later()
        else:
            read.deferred.errback(failure)

    # Turns

    def _running(self) -> Shell | None:
        """Return the shell, None before the node takes part. Raises: RaftShutdown"""
        try:
            shell = self._raft._running()
        except NotLeader:
            return None
        if shell is not self._shell:
            # After a bootstrap; nothing can be under way before it.
            self._shell = shell
            config = self._raft._parts.config
            self._reads = Verifications(shell.applier, self._clock, config.apply_slice)
        return shell

    def _soon(self) -> None:
        """Send what waits in the next turn of the reactor."""
        self._have_turn(0)

    def _later(self) -> None:
        """Send what waits after a pause: who leads may not have changed."""
        if self._due is None:
            self._have_turn(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _have_turn(self, seconds: float) -> None:
        due = self._due
        if self._stopped:
            return
        if due is not None:
            if seconds or due.getTime() <= self._clock.seconds():
                return
            due.cancel()
        self._due = self._clock.callLater(seconds, self._turn)

    def _turn(self) -> None:
        """Send all that waits to whoever leads."""
        self._due = None
        overtaken, self._overtaken = self._overtaken, []
        for command in overtaken:
            self._fail(command, OutcomeUnknown(RESULT_UNKNOWN))
        try:
            shell = self._running()
        except RaftShutdown:
            return  # all is told when it stops
        leader = None if shell is None else shell.consensus.leader
        if shell is None or leader is None:
            return  # `_leader_changed` comes
        if self._read_lane is not None and self._read_lane.target != leader:
            self._leave(self._read_lane)
        if not (self._queued or self._unasked):
            return
        if leader == self._raft.address:
            self._serve_here()
        elif shell.heard_leader != leader:
            self._later()  # its next message says whether it takes them
        elif not shell.heard_forwards or not self._header(shell):
            self._refuse(NotLeader(leader))
        elif isinstance(self._transport, WithForwarding):
            if self._queued:
                self._send_commands(shell, leader)
            if self._unasked:
                self._ask(shell, leader)
        else:
            self._refuse(NotLeader(leader))

    def _serve_here(self) -> None:
        queued, self._queued = self._queued, deque()
        for command in queued:
            if command in self._commands:
                self._propose(command)
        reads, self._unasked = self._unasked, []
        for read in reads:
            if not read.deferred.called:
                self._read_here(read)

    def _refuse(self, error: RaftError) -> None:
        queued, self._queued = self._queued, deque()
        for command in queued:
            self._fail(command, error)
        reads, self._unasked = self._unasked, []
        for read in reads:
            if not read.deferred.called:
                read.deferred.errback(error)

    def _header(self, shell: Shell) -> Any:
        return shell.responder.forward_header(shell.consensus.cluster)

    # Lanes

    def _lane_to(self, lane: _Lane[M] | None, leader: str) -> _Lane[M]:
        """Return a lane to *leader*: *lane*, or a new one in its place."""
        if lane is not None:
            if lane.target == leader and not lane.is_broken:
                return lane
            lane.retire()
            if lane.under_way:
                self._retired[lane] = None
        made: _Lane[M] = _Lane(leader)
        assert isinstance(self._transport, WithForwarding), "it was looked at"
        opening = answer_of(self._transport.forward_pipeline, leader)
        made.opening = opening
        opening.addCallbacks(
            self._opened,
            self._not_opened,
            callbackArgs=(made,),
            errbackArgs=(made,),
        )
        return made

    def _opened(self, pipeline: ForwardPipeline, lane: _Lane[Any]) -> None:
        lane.opening, lane.pipeline = None, pipeline
        if lane.retired:
            pipeline.close()
        else:
            self._soon()

    def _not_opened(self, failure: Failure, lane: _Lane[Any]) -> None:
        # Nothing was sent: what waits for this lane is still queued.
        lane.opening = None
        if self._lane is lane:
            self._lane = None
        if self._read_lane is lane:
            self._read_lane = None
        if not lane.retired:
            self._later()
        if not failure.check(RaftError) and not lane.retired:
            self.log.failure(
                "a connection to {peer} broke", failure=failure, peer=lane.target
            )

    def _left(self, lane: _Lane[Any], message: object) -> None:
        """Take *message* off its lane, as its answer has come, or none will."""
        if message in lane.under_way:
            lane.under_way.remove(message)
        if lane.retired and not lane.under_way:
            self._retired.pop(lane, None)
            lane.close()

    # Commands to the leader

    def _send_commands(self, shell: Shell, leader: str) -> None:
        lane = self._lane = self._lane_to(self._lane, leader)
        while self._queued and lane.may_send:
            on_way = sum(message.size for message in lane.under_way)
            if len(lane.under_way) >= MOST_MESSAGES or on_way >= MOST_BYTES:
                return  # the next answer makes room
            message = self._next_message(shell)
            if message is not None:
                self._send(message, lane, shell)

    def _next_message(self, shell: Shell) -> _Message | None:
        """Take from the queue what fits into one message; None if all had gone."""
        most_bytes = self._raft._parts.config.max_append_bytes
        commands: list[Command] = []
        size = 0
        queued = self._queued
        while queued and len(commands) < self._most_commands:
            command = queued[0]
            if commands and size + len(command.data) > most_bytes:
                break
            queued.popleft()
            if command in self._commands:
                commands.append(command)
                size += len(command.data)
        return _Message(commands, size, shell.awaited.sent()) if commands else None

    def _send(self, message: _Message, lane: _Lane[_Message], shell: Shell) -> None:
        for command in message.commands:
            command.is_out = True
        data = [command.data for command in message.commands]
        request = ForwardRequest(data, self._header(shell))
        lane.under_way.append(message)
        assert lane.pipeline is not None, "it may send"
        lane.pipeline.forward(request).addCallbacks(
            self._answered,
            self._not_answered,
            callbackArgs=(message, lane, shell),
            errbackArgs=(message, lane, shell),
        )

    def _answered(
        self,
        response: ForwardResponse,
        message: _Message,
        lane: _Lane[_Message],
        shell: Shell,
    ) -> None:
        commands, places = message.commands, response.places
        if len(places) != len(commands):
            lane.close()
            wrong = OutcomeUnknown(f"{lane.target} answered {len(places)} places")
            self._fail_all(commands, wrong)
            places = ()
        again: list[Command] = []
        why: RaftError = NotLeader(response.leader)
        for command, place in zip(commands, places, strict=False):
            if place[0]:
                if command in self._commands:
                    self._placed(command, place, shell)
            elif place in (NOT_APPENDED, LEADER_FULL):
                again.append(command)
                if place == LEADER_FULL:
                    why = QueueFull(f"too much waits at the leader {lane.target}")
            else:
                self._fail(command, _error_of(place, lane.target))
        # Behind the waits: this may apply the entries at once.
        newest = max(places, default=NOT_APPENDED)
        if newest[0]:
            shell.learn_commit(*newest)
        # Last: until here the responses that came before this answer are kept.
        shell.awaited.answered(message.sent_at)
        self._left(lane, message)
        if again:
            self._try_again(again, why)
        else:
            self._pause = FIRST_PAUSE
            if self._queued:
                self._soon()

    def _not_answered(
        self, failure: Failure, message: _Message, lane: _Lane[_Message], shell: Shell
    ) -> None:
        shell.awaited.answered(message.sent_at)
        self._left(lane, message)
        error = failure.value
        # An error text is given instead of an append, never after one.
        if isinstance(error, RemoteError):
            self._try_again(message.commands, error)
            return
        self._fail_all(
            message.commands,
            OutcomeUnknown(f"{lane.target}, the leader, gave no answer: {error}"),
        )
        if self._queued:
            self._later()

    def _fail_all(self, commands: Sequence[Command], error: RaftError) -> None:
        for command in commands:
            self._fail(command, error)

    # Reads by way of the leader

    def _ask(self, shell: Shell, leader: str) -> None:
        """Ask one question for all reads that wait."""
        lane = self._read_lane = self._lane_to(self._read_lane, leader)
        if not lane.may_send or len(lane.under_way) >= MOST_QUESTIONS:
            return
        assert self._reads is not None, "the node takes part"
        reads, self._unasked = self._unasked, []
        for read in reads:
            if not read.deferred.called:
                self._reads.add(read)
        batch = self._reads.take()
        if not batch:
            return
        question = _Question(batch, self._clock.seconds())
        lane.under_way.append(question)
        assert lane.pipeline is not None, "it may send"
        lane.pipeline.forward(ForwardRequest((), self._header(shell))).addCallbacks(
            self._question_answered,
            self._question_not_answered,
            callbackArgs=(question, lane, shell),
            errbackArgs=(question, lane),
        )

    def _question_answered(
        self,
        response: ForwardResponse,
        question: _Question,
        lane: _Lane[_Question],
        shell: Shell,
    ) -> None:
        self._left(lane, question)
        index, term = response.places[0] if response.places else NOT_APPENDED
        if not index:
            self._take_back(question)
            self._later()
            return
        self._pause = FIRST_PAUSE
        shell.learn_commit(index, term)
        self._covering.append((question.asked_at, index))
        if len(self._covering) > LEAST_PASSED:
            self._covering.popleft()  # a state machine that hangs: no more than that
        for read in question.batch.readers:
            assert isinstance(read, Read), "nothing else is added"
            read.confirmed_index = index
        if self._reads is not None:
            self._reads.confirmed(question.batch, index)
        if self._unasked:
            self._soon()

    def _question_not_answered(
        self, failure: Failure, question: _Question, lane: _Lane[_Question]
    ) -> None:
        self._left(lane, question)
        self._take_back(question)
        if self._unasked:
            self._later()

    def _leave(self, lane: _Lane[_Question]) -> None:
        """Ask again what was asked of one who leads no more, and may be gone."""
        for question in lane.under_way:
            self._take_back(question)

    def _take_back(self, question: _Question) -> None:
        """Have the reads of *question* wait for another one."""
        assert self._reads is not None, "it was asked"
        for read in self._reads.take_back(question.batch):
            assert isinstance(read, Read), "nothing else is added"
            self._unasked.append(read)

    # Deadlines and the end

    def _expect(self, waiting: Command | Read) -> None:
        """Fail *waiting* at its deadline."""
        if waiting.deadline == inf:
            return
        self._number += 1
        heap = self._deadlines
        heappush(heap, (waiting.deadline, self._number, waiting))
        # Those that have an outcome leave the heap when there are too many of them: to
        # look for each one would cost more than the command.
        waits = len(self._commands) + self._waiting_reads
        if len(heap) > 2 * waits + LEAST_PASSED:
            heap[:] = [each for each in heap if not each[2].deferred.called]
            heapify(heap)
        if heap[0][2] is waiting:
            self._set_timer(waiting.deadline)

    def _set_timer(self, deadline: float) -> None:
        delay = max(0.0, deadline - self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._deadline_passed)
        else:
            self._timer.reset(delay)

    def _deadline_passed(self) -> None:
        self._timer = None
        now, heap = self._clock.seconds(), self._deadlines
        late: list[Command | Read] = []
        while heap and (heap[0][2].deferred.called or heap[0][0] <= now):
            waiting = heappop(heap)[2]
            if not waiting.deferred.called:
                late.append(waiting)
        if heap:
            self._set_timer(heap[0][0])
        for waiting in late:
            if waiting.deferred.called:
                continue  # whoever was told before it has cancelled it
            if isinstance(waiting, Command):
                self._fail(waiting, self._why_late(waiting))
            else:
                self._read_is_late(waiting)

    def _why_late(self, command: Command) -> RaftError:
        if command.index:
            return OutcomeUnknown(
                f"it is committed at index {command.index}, and was not applied here "
                "in time"
            )
        if command.is_out:
            return OutcomeUnknown("it was not known to be committed in time")
        return command.why or NotLeader(self._raft.leader)

    def _read_is_late(self, read: Read) -> None:
        self._withdraw(read)
        if read.deferred.called:
            return
        if read.confirmed_index:
            index = read.confirmed_index
            error: RaftError = ReadTimedOut(f"index {index} was not applied in time")
        else:
            error = NotLeader(self._raft.leader)
        read.deferred.errback(error)

    def _leader_changed(self, observation: Observation) -> None:
        self._pause = FIRST_PAUSE
        if self._queued or self._unasked or self._read_lane is not None:
            self._soon()

    def _stop(self, _: object) -> None:
        """Fail all that waits: what may be appended is unknown."""
        self._stopped = True
        for call in (self._due, self._timer):
            if call is not None and call.active():
                call.cancel()
        self._due = self._timer = None
        lanes = [self._lane, self._read_lane, *self._retired]
        try:
            self._raft._running()
            error = RaftShutdown()
        except RaftShutdown as reason:
            error = reason
        for command in list(self._commands):
            failed = isinstance(error, (NodeFailed, NodeRemoved))
            unknown = ShutdownWhileCommitting(error if failed else None)
            self._fail(command, unknown if command.is_out else error)
        self._queued.clear()
        if self._reads is not None:
            self._reads.fail_now(error)
        reads, self._unasked = self._unasked, []
        for read in reads:
            if not read.deferred.called:
                read.deferred.errback(error)
        self._deadlines.clear()
        for lane in lanes:
            if lane is not None:
                lane.close()


class _Placed:
    """A command of *forwarder* whose entry is awaited."""

    __slots__ = ("_command", "_forwarder")

    def __init__(self, forwarder: Forwarder, command: Command) -> None:
        self._forwarder = forwarder
        self._command = command

    def applied(self, index: int, term: int, response: object) -> None:
        """Take the response to its entry."""
        self._forwarder.applied(self._command, index, term, response)

    def overtaken(self, index: int) -> None:
        """Learn that the response is not known here."""
        self._forwarder.overtaken(self._command)


RESULT_UNKNOWN = (
    "it is committed, but its result is not known here: a snapshot took the place of "
    "its entry, or too much was applied before the leader's answer came"
)


def _error_of(place: Place, leader: str) -> RaftError:
    """Make the error for a command that has no place, and is not tried again."""
    if place == TOO_LARGE:
        return EntryTooLarge(f"{leader} takes no command of that size")
    return OutcomeUnknown(f"{leader} stopped to lead before it was committed")


def _is_of_leader(observation: Observation) -> bool:
    return isinstance(observation.data, LeaderObservation)
