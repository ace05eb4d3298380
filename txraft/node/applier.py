"""The applier: feed committed entries to the FSM, in order, one at a time, in slices.

A slice ends after some milliseconds, and the next one begins with the next iteration of
the reactor: a node that applies a long backlog still answers heartbeats, and is not
taken for dead. A response may be anything that can be awaited, a Deferred or a
coroutine; the next entry waits for it.

          advance            the slice is over, or a response is awaited
    idle ─────────> applying ──────────────────────────────────────────> busy
      ^                │  ^                                                │
      └── all applied ─┘  └──── callLater(0), or the response fires ───────┘

`pause` holds it between two entries, for a snapshot; `stop` and a failure of the FSM
end it. `StuckWatch` tells when the FSM does not get on.

Source: Raft dissertation §3.5, figure 3.1 ("lastApplied").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError
from txraft.interfaces import FSM, BatchingFSM
from txraft.node.application import (
    FINISHED,
    all_finished,
    awaited,
    is_unfinished,
    last_awaited,
)
from txraft.node.skipping import Skips, digest_of

LARGEST_SLICE_ENTRIES = 256
"""Entries fetched at once, and the most that a batch of an FSM holds."""

FIRST_BATCH_ENTRIES = 16
"""What the first batch of an FSM holds, before it is known how long one takes."""

FSM_FAILED = (
    "the state machine failed at {where}, so this replica may differ from its peers; "
    "if all members stop there, see `txraft log skip`"
)
OUT_OF_MEMORY = (
    "out of memory while applying {where}: give this node more and start it again, it "
    "then goes on from what is on its disk"
)
HALF_APPLIED = "entries were applied only in part"
LOG_UNREADABLE = "committed entries cannot be read back from the log"

Fetch = Callable[[int, int], list[Entry] | Deferred[list[Entry]]]
Settled = Callable[[Sequence[Entry], Sequence[object]], None]


class Applier:
    """Applies entries up to the commit index.

    It begins behind *applied_index*, and calls:

    - *fetch* for the entries *first* to at most *last*, or a Deferred of them;
    - *settled* with entries and their responses, once they are applied; it may be
      replaced;
    - *decided* with each no-op that carries data, a decision of a leader, between two
      commands; if that raises, this replica stops;
    - *failed_at* with the committed entries at one of which the FSM has failed, and
      then *failed* with why this replica must stop.

    A slice ends after *slice_seconds*: between two commands, or between two batches of
    an FSM that takes batches. A batch cannot be interrupted, so it holds as many
    commands as take a part of that time, and only one up to the index *singly_up_to*.
    Entries that *skips* names are not applied.
    """

    def __init__(
        self,
        fsm: FSM,
        *,
        clock: IReactorTime,
        slice_seconds: float,
        fetch: Fetch,
        settled: Settled,
        failed: Callable[[str, Failure], None],
        applied_index: int,
        decided: Callable[[Entry], None] = lambda entry: None,
        skips: Skips | None = None,
        singly_up_to: int = 0,
        failed_at: Callable[[Sequence[Entry]], None] = lambda entries: None,
    ) -> None:
        self._fsm = fsm
        self._clock = clock
        self._slice_seconds = slice_seconds
        self._fetch = fetch
        self.settled = settled
        self._failed = failed
        self._decided = decided
        self._skips = skips
        self._singly_up_to = singly_up_to
        self._failed_at = failed_at
        # The index up to which entries may be applied; the time at which the slice
        # ends.
        self._target = applied_index
        self._until = 0.0
        # Busy: it goes on by itself when a timer, a response or the entries come.
        # Applying: the FSM, or somebody who was told of a result, is on the stack.
        self._busy = False
        self._applying = False
        self._paused = False
        self._stopped = False
        # Those who called `pause` and wait for the FSM to be left alone; and those who
        # wait for an index to be applied.
        self._idle: list[Deferred[None]] = []
        self._waiting: list[tuple[int, Callable[[int], None]]] = []
        self.applied_index = applied_index
        self.last_command_index = 0
        self._name = f"{type(fsm).__name__}.apply"
        self._name_of_batch = f"{self._name}_batch"
        self._batching_fsm = fsm if isinstance(fsm, BatchingFSM) else None
        batching = self._batching_fsm is not None
        self._batch_entries = FIRST_BATCH_ENTRIES if batching else LARGEST_SLICE_ENTRIES

    @property
    def backlog(self) -> int:
        """How many committed entries wait to be applied."""
        return self._target - self.applied_index

    def advance(self, commit_index: int) -> None:
        """Apply entries up to *commit_index*, now or soon."""
        if commit_index > self._target:
            self._target = commit_index
            self._run()

    def call_when_applied(self, index: int, call: Callable[[int], None]) -> None:
        """Call *call* with the applied index once *index* is applied."""
        if self.applied_index >= index:
            call(self.applied_index)
        else:
            self._waiting.append((index, call))

    def pause(self) -> Deferred[None]:
        """Stop between two entries; fires when the FSM is left alone.

        The state of the FSM is then that of `applied_index`: no entry is half applied,
        and no response is outstanding. It never fires after `stop`.
        """
        self._paused = True
        idle: Deferred[None] = Deferred()
        if self._busy or self._applying:
            self._idle.append(idle)
        else:
            idle.callback(None)
        return idle

    def resume(self, applied_index: int | None = None) -> None:
        """Go on, after *applied_index* if the FSM was restored to it."""
        self._paused = False
        if applied_index is not None:
            self.applied_index = applied_index
            self._target = max(self._target, applied_index)
            self._tell_waiting()
        self._run()

    def stop(self) -> None:
        """Apply nothing any more."""
        self._stopped = True

    def _run(self) -> None:
        if self._busy or self._applying or self._stopped:
            return  # never two loops: each would apply the next entry
        self._until = self._clock.seconds() + self._slice_seconds
        while self.applied_index < self._target and not self._paused:
            # The target may grow while an entry is applied; it is looked at each time.
            first = self.applied_index + 1
            last = min(self._target, first + LARGEST_SLICE_ENTRIES - 1)
            entries = self._fetch(first, last)
            if not isinstance(entries, list):
                self._busy = True
                entries.addCallbacks(self._go_on, self._not_fetched)
                return
            if not self._apply(entries):
                return
        if self._paused:
            self._leave_alone()

    def _not_fetched(self, failure: Failure) -> None:
        if not self._stopped:
            self._fail(LOG_UNREADABLE, failure)

    def _go_on(self, entries: Sequence[Entry]) -> None:
        """Apply *entries*, after a wait for them or for a response, and more."""
        self._busy = False
        if self._stopped:
            return
        self._until = self._clock.seconds() + self._slice_seconds
        if self._paused:
            # The waiters must be told here. `_apply`, which tells them otherwise, comes
            # after the pause only if there are more entries: in an idle cluster a read
            # would wait for ever. `_busy` is not touched after that: whoever was told
            # may have called `resume`, which may be waiting again.
            self._tell_waiting()
            self._run()
        elif self._apply(entries):
            self._continue()

    def _continue(self) -> None:
        self._busy = False
        self._run()

    def _leave_alone(self) -> None:
        idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.callback(None)

    def _apply(self, entries: Sequence[Entry]) -> bool:
        """Apply *entries*; tell whether to go on at once."""
        # The FSM, and whoever is told that an index is applied, may call this object.
        # `pause` must not take the FSM for idle then, and `resume` must not begin a
        # second loop: if that one waited for a response, this loop would apply the same
        # command again.
        self._applying = True
        try:
            if self._skips:  # hardly ever; asked once for all *entries*, for speed
                entries = self._skips.around(entries)
            go_on = self._apply_runs(entries)
        except BaseException:
            # A signal, or an invariant; the state machine's own are named below.
            self._fail(HALF_APPLIED, Failure())
            go_on = False
        try:
            if self._waiting:
                self._tell_waiting()
        finally:
            self._applying = False
        return go_on

    def _apply_runs(self, entries: Sequence[Entry]) -> bool:
        position = 0
        while position < len(entries):
            entry = entries[position]
            if entry.type is LogType.COMMAND:
                most = self._batch_entries
                if entry.index <= self._singly_up_to:
                    most = 1  # the FSM failed in a batch there: which one was it?
                end = _end_of_commands(entries, position, most)
                if self._batching_fsm is None:
                    go_on = self._apply_each(entries, position, end)
                else:
                    fsm = self._batching_fsm
                    go_on = self._apply_batch(fsm, entries, position, end)
                if not go_on:
                    return False
                position = end
            else:
                if entry.data and entry.type is LogType.NOOP:
                    try:
                        self._decided(entry)
                    except BaseException:
                        self._fail(f"entry {entry.index} cannot be applied", Failure())
                        return False
                self._settle(entry, None)
                position += 1
                if self._stopped:
                    return False
        return True

    def _apply_batch(
        self, fsm: BatchingFSM, entries: Sequence[Entry], first: int, end: int
    ) -> bool:
        while first < end:
            batch = entries[first:end]
            began = self._clock.seconds()
            whole = last = None
            try:
                responses = fsm.apply_batch(batch)
                # A list is the usual answer, and needs no look at what it could be.
                if type(responses) is not list and is_unfinished(responses):
                    whole = awaited(responses, self._name_of_batch)
                else:
                    last = last_awaited(responses, len(batch), self._name_of_batch)
            except BaseException:
                self._fail_at(batch, Failure())
                return False
            self._fit_batches(self._clock.seconds() - began)
            if whole is not None:
                # The whole batch is one piece of work, answered at once when it ends.
                first = end
                waiting, accept = whole, partial(self._accept_batch, batch)
            elif last is not None:
                # It returned early, with a last response that is unfinished: that one
                # is awaited, and the rest of the batch is given again behind it.
                first += len(responses)
                self._settle_batch(batch, responses[:-1])
                waiting, accept = last, partial(self._accept, entries[first - 1])
            else:
                self._settle_batch(batch, responses)
                break
            if not self._await(waiting, accept, entries[first:]):
                return False
        return not self._ends_slice()

    def _fit_batches(self, took: float) -> None:
        """Let the next batches be smaller, or larger, after one that *took* so long."""
        # Nothing can come in between while a batch is applied. Halving and doubling
        # finds the size within a few batches, with room for one that takes longer.
        if took > self._slice_seconds / 2:
            self._batch_entries = max(1, self._batch_entries // 2)
        elif took < self._slice_seconds / 8:
            self._batch_entries = min(LARGEST_SLICE_ENTRIES, self._batch_entries * 2)

    def _apply_each(self, entries: Sequence[Entry], first: int, end: int) -> bool:
        apply = self._fsm.apply
        for position in range(first, end):
            entry = entries[position]
            try:
                response = apply(entry)
                # One look-up for nearly all responses; this is done for each command.
                is_there = type(response) in FINISHED or not is_unfinished(response)
                waiting = None if is_there else awaited(response, self._name)
            except ApplicationError as refusal:
                # All replicas refuse it alike: that is an outcome, not a failure.
                response, waiting = refusal, None
            except BaseException:
                self._fail_at((entry,), Failure())
                return False
            if waiting is None:
                self._settle(entry, response)
            elif not self._await(
                waiting, partial(self._accept, entry), entries[position + 1 :]
            ):
                return False
            if self._ends_slice():
                return False
        return True

    def _ends_slice(self) -> bool:
        """Tell whether this is the end, or time to let others have their turn."""
        if self._stopped:
            return True
        if self._clock.seconds() < self._until:
            return False
        self._busy = True
        self._clock.callLater(0, self._continue)
        return True

    def _await(
        self,
        response: Deferred[Any],
        accept: Callable[[object], bool],
        rest: Sequence[Entry],
    ) -> bool:
        """Have *accept* take what *response* fires with, now or later.

        Returns: whether it was there already, and taken. If it comes later, *rest* is
            applied after it.
        """
        # A response that is there already is taken by a loop and not by recursion: a
        # backlog of a million such responses must not fill the stack.
        there: list[object] = []
        waiting = False

        def fired(result: object) -> None:
            if not waiting:
                there.append(result)
            elif accept(result):
                self._go_on(rest)

        response.addBoth(fired)
        if there:
            return accept(there[0])
        waiting = self._busy = True
        return False

    def _accept(self, entry: Entry, result: object) -> bool:
        """Settle *entry* with what its response fired with; tell whether to go on."""
        if self._stopped:
            return False
        if isinstance(result, Failure):
            if not result.check(ApplicationError):
                self._fail_at((entry,), result)
                return False
            result = result.value
        self._settle(entry, result)
        return True

    def _accept_batch(self, batch: Sequence[Entry], result: object) -> bool:
        """Settle all of *batch* with the responses that came later."""
        if self._stopped:
            return False
        if isinstance(result, Failure):
            self._fail_at(batch, result)
            return False
        try:
            responses = all_finished(result, len(batch), self._name_of_batch)
        except Exception:
            self._fail_at(batch, Failure())
            return False
        self._settle_batch(batch, responses)
        return True

    def _settle_batch(
        self, batch: Sequence[Entry], responses: Sequence[object]
    ) -> None:
        """Settle as many commands of *batch* as have *responses*."""
        if responses:
            settled = batch[: len(responses)]
            self.applied_index = self.last_command_index = settled[-1].index
            self.settled(settled, responses)

    def _settle(self, entry: Entry, response: object) -> None:
        # First: whoever is answered may read the FSM, and ask where it stands.
        self.applied_index = entry.index
        if entry.type in (LogType.COMMAND, LogType.BARRIER):
            self.last_command_index = entry.index
        self.settled((entry,), (response,))

    def _tell_waiting(self) -> None:
        # Taken out before any is called: what is called may add others.
        due = [w for w in self._waiting if w[0] <= self.applied_index]
        self._waiting = [w for w in self._waiting if w[0] > self.applied_index]
        for _, call in due:
            call(self.applied_index)

    def _fail_at(self, entries: Sequence[Entry], failure: Failure) -> None:
        """Stop, as the state machine has failed at one of *entries*."""
        # Noted first, as the node stops then: only an entry at which a node has stopped
        # may be skipped by an operator.
        self._failed_at(entries)
        # Lack of memory is this node's own, and says nothing about the replica.
        reason = OUT_OF_MEMORY if failure.check(MemoryError) else FSM_FAILED
        self._fail(reason.format(where=_named(entries)), failure)

    def _fail(self, reason: str, failure: Failure) -> None:
        self._stopped = True
        self._failed(reason, failure)


def _named(entries: Sequence[Entry]) -> str:
    """Name *entries* so that an operator finds them: index, term, type and size."""
    first, last = entries[0], entries[-1]
    size = sum(len(entry.data or b"") for entry in entries)
    if first is last:
        return (
            f"entry {first.index} (term {first.term}, {first.type.name}, {size} bytes, "
            f"digest {digest_of(first).hex()})"
        )
    return (
        f"one of the entries {first.index} to {last.index} (terms {first.term} to "
        f"{last.term}, {first.type.name}, {size} bytes together)"
    )


def _end_of_commands(entries: Sequence[Entry], position: int, most: int) -> int:
    """Return where the run of *most* commands that begins at *position* ends."""
    end, limit = position + 1, min(len(entries), position + most)
    while end < limit and entries[end].type is LogType.COMMAND:
        end += 1
    return end


LONGEST_STEP = 1.0
"""Seconds that one look adds at most: a process that was paused is not stuck."""

REPEAT_SECONDS = 60.0
"""The first wait before it is said again; each further one is twice as long."""


class StuckWatch:
    """Looks at each tick whether the applied index moves, for the server *node*.

    `seconds` is for how long it has not, though there is what could be applied, once
    that is longer than *limit*; 0.0 otherwise.
    """

    log = Logger()

    def __init__(self, node: str, limit: float) -> None:
        self._node = node
        self._limit = limit
        self._index = -1
        self._looked = 0.0
        self._waited = 0.0
        self._times_logged = 0
        self._next = limit
        self.seconds = 0.0

    def look(self, now: float, applied: int, backlog: int) -> None:
        """Take note that *backlog* entries wait behind the index that is *applied*."""
        if not backlog or applied != self._index:
            if self._times_logged:
                self.log.info(
                    "{node} applies entries again, after {waited:.0f} s at {index}",
                    node=self._node,
                    waited=self._waited,
                    index=self._index + 1,
                )
            self._index, self._waited, self._times_logged = applied, 0.0, 0
            self._next = self._limit
        else:
            self._waited += min(now - self._looked, LONGEST_STEP)
        self._looked = now
        self.seconds = self._waited if self._waited >= self._limit else 0.0
        if self._waited >= self._next:
            self._tell(backlog)

    def _tell(self, backlog: int) -> None:
        self._next = self._waited + REPEAT_SECONDS * (1 << min(self._times_logged, 6))
        self._times_logged += 1
        self.log.warn(
            "the state machine of {node} has not finished entry {index} for "
            "{waited:.0f} s, and {backlog} committed ones wait: what it has returned "
            "does not fire. Until it does nothing is applied or read here",
            node=self._node,
            index=self._index + 1,
            waited=self._waited,
            backlog=backlog,
        )
