"""The writer: one queue of writes to the disk, in consensus order, one at a time.

All that waits when the disk is free goes to it together, so a sync covers what arrived
during the sync before. There is no other batching.

    queued        it waits for the write that is under way
    under way     it was handed to the disk, in whatever state that is
    durable       its sync has ended: only now it is counted, and told to consensus
    taken back    a truncation is queued behind it: it never counts, though it may reach
                  the disk

Entries that need nothing but a place at the end of a file are written by the reactor
thread itself, into the memory of the operating system, and only their sync goes on
elsewhere: that takes less time than waking a thread. While syncs are slow, writes may
have to wait for the disk too, and a thread makes both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txraft.core.entry import Entry
from txraft.core.ready import HardState, Ready
from txraft.errors import RaftShutdown
from txraft.interfaces import LogStore, StableStore, TwoStepLogStore
from txraft.node.application import done
from txraft.node.metrics import Timer
from txraft.node.synced_note import CURRENT_TERM, UNNOTED, LogEnd, Noted, SyncedNote
from txraft.node.worker import Worker

LAST_VOTE_TERM = b"LastVoteTerm"
LAST_VOTE_CANDIDATE = b"LastVoteCand"
CLUSTER = b"Cluster"

QUICK_SECONDS = 0.005
"""A disk is quick whose last write and sync took no longer."""

IDLE_SECONDS = 1.0
"""After this long without a write, what is synced is noted."""

HINT_SECONDS = 0.01
"""At most so often a hint of it is given. It takes 20 microseconds, and no sync."""

BUSY_SECONDS = 10.0
"""So often it is noted where there is no such rest. That takes a few syncs, for which
what comes meanwhile waits: once in ten seconds they delay one commit in thousands."""

Operation = Callable[[], None]


def stored_state(state: HardState) -> dict[bytes, bytes]:
    """Encode *state* under the keys of hashicorp/raft, and one of ours."""
    term = state.term.to_bytes(8, "big")
    candidate = (state.voted_for or "").encode("utf-8", "surrogateescape")
    return {
        CURRENT_TERM: term,
        LAST_VOTE_TERM: term if state.voted_for else bytes(8),
        LAST_VOTE_CANDIDATE: candidate,
        CLUSTER: state.cluster or b"",
    }


class Writer:
    """Writes what consensus wants durable.

    *synced* is called with the number of each durable write, *failed* with the first
    failure. Nothing is written after that, because nobody knows what a failed sync left
    behind. At the start the log ends at *end*, with *current_term* in the stable store
    and *noted* as the note of what was synced. *seconds* returns the time.

    `is_idle` is True while nothing is under way. `synced_number` is the last durable
    write, `synced_index` the last durable entry that no queued truncation takes back.
    `stores` times the writes of entries, `stored` counts the entries.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        log_store: LogStore,
        stable_store: StableStore,
        synced: Callable[[int], None],
        failed: Callable[[Failure], None],
        end: LogEnd,
        seconds: Callable[[], float] = perf_counter,
        noted: Noted = UNNOTED,
        current_term: int = 0,
    ) -> None:
        self._worker = worker
        self._log_store = log_store
        self._note = SyncedNote(stable_store, end, noted, current_term)
        self._two_step = log_store if isinstance(log_store, TwoStepLogStore) else None
        self._seconds = seconds
        # How long the last write and its sync took: is the disk quick? When it ended,
        # and when a note and a hint were written last.
        self._took = 0.0
        self._ended = self._noted_at = self._hinted_at = seconds()
        self._synced = synced
        self._failed = failed
        # What is queued. If the last of these stores entries, `_appending` is the list
        # of them, and more entries may join it.
        self._operations: list[Operation] = []
        self._appending: list[Entry] | None = None
        # The number of the newest write that was queued.
        self._number = 0
        # The index at which the log ends after all that is queued; and at which it ends
        # after what is under way, without what is taken back.
        self._last_index = self._coming_index = end.index
        self._waiting: deque[tuple[int, Deferred[None]]] = deque()
        self._flushing: list[Deferred[None]] = []
        self.is_idle = True
        self._broken: Failure | None = None
        self.synced_number = 0
        self.synced_index = end.index
        self.stores = Timer()
        self.stored = 0

    @property
    def waiting(self) -> int:
        """How many operations wait for the disk to be free."""
        return len(self._operations)

    def write(self, ready: Ready) -> None:
        """Queue the write of *ready*, in the order that `Ready` documents."""
        # The order is the contract of `Ready`. Term and vote go before the entries of
        # that term. A crash in between leaves a term without entries, which does no
        # harm. The other way round it leaves a log of a term that the stable store has
        # not seen, and the next start refuses that.
        if ready.reset_log is not None:
            index, keep = ready.reset_log.index, ready.reset_log.keep_suffix
            self._queue(lambda: self._reset_log(index, keep))
            if not keep:
                self._keep_up_to(index)
        if ready.hard_state is not None:
            state, first = ready.hard_state, ready.truncate_from
            self._queue(lambda: self._save_state(state, first))
        if ready.truncate_from is not None:
            first = ready.truncate_from
            self._queue(lambda: self._truncate_from(first))
            self._keep_up_to(first - 1)
        if ready.append:
            self._append(ready.append)
        self._number = ready.write_number
        self._start()

    def save(self, values: Mapping[bytes, bytes]) -> None:
        """Queue the storing of *values* in the stable store."""
        self._queue(lambda: self._note.save(values))
        self._start()

    def note(self) -> None:
        """Queue the noting of what will be synced by then, if that is new."""
        self._queue(self._note.write)
        self._start()

    def tick(self) -> None:
        """Note what is synced, if the disk has been idle for a while, or never is."""
        if not self._note.is_behind or self._broken is not None:
            return
        now = self._seconds()
        if self.is_idle:
            self._hint(now)
        rests = self.is_idle and now - self._ended >= IDLE_SECONDS
        if rests or now - self._noted_at >= BUSY_SECONDS:
            self._noted_at = now
            self.note()

    def delete_up_to(self, index: int) -> None:
        """Queue the deletion of the log's prefix up to *index*."""
        self._queue(lambda: self._delete_up_to(index))
        self._start()

    def when_synced(self) -> Deferred[None]:
        """Return a Deferred that fires when all writes queued so far are durable.

        It fails with what the write raised.
        """
        if self._broken is not None:
            return fail(self._broken)
        if self.synced_number >= self._number:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append((self._number, waiter))
        return waiter

    def finish(self) -> Deferred[None]:
        """Note what is synced, as the last write of all.

        Returns: a Deferred that fires when nothing is left to do, done or failed.
        """
        if self._broken is None:
            self.note()
        return self.flush()

    def flush(self) -> Deferred[None]:
        """Return a Deferred that fires when nothing is left to do, done or failed."""
        flushed: Deferred[None] = Deferred()
        self._flushing.append(flushed)
        self._tell_flushed()
        return flushed

    def _tell_flushed(self) -> None:
        if not self.is_idle or (self._operations and self._broken is None):
            return
        flushing, self._flushing = self._flushing, []
        for flushed in flushing:
            flushed.callback(None)

    def _keep_up_to(self, index: int) -> None:
        """Count no entry after *index*: a queued write takes them back.

        The write that is under way may still bring such entries to the disk. They are
        not the entries that the log will have there.
        """
        self._last_index = index
        self._coming_index = min(self._coming_index, index)
        self.synced_index = min(self.synced_index, index)

    def _queue(self, operation: Operation) -> None:
        self._appending = None
        self._operations.append(operation)

    def _append(self, entries: list[Entry]) -> None:
        """Queue *entries*, as one write with those that were queued right before."""
        # One call of the store for all turns that wait: entries per sync are what makes
        # a loaded cluster fast. Anything queued in between ends the batch (`_queue`).
        if self._appending is None:
            batch = list(entries)
            self._operations.append(lambda: self._store(batch))
            self._appending = batch
        else:
            self._appending += entries
        self._last_index = entries[-1].index

    def _start(self) -> None:
        if not self.is_idle or self._broken is not None or not self._operations:
            return
        # One call for all that is queued: it is durable together.
        operations, self._operations = self._operations, []
        appending, self._appending = self._appending, None
        self.is_idle = False
        number, self._coming_index = self._number, self._last_index
        began = self._seconds()
        done = None
        # Only a mere append may be written on this thread. Truncations, and term and
        # vote, sync by themselves, and would hold up the reactor.
        if appending is not None and len(operations) == 1:
            done = self._write_here(appending)
        if done is None:

            def perform() -> None:
                for operation in operations:
                    operation()

            done = self._worker.run(perform)
        done.addCallbacks(self._done, self._broke, (number, began))

    def _write_here(self, entries: list[Entry]) -> Deferred[None] | None:
        """Write *entries* on this thread, and have the worker sync them.

        Two steps: `write_logs` puts the bytes into the memory of the operating system,
        `sync` makes them durable, and only then `logs_synced` lets the store count
        them. Nothing else touches the log between the two, as `is_idle` is False.

        Returns: None, and nothing was done, when the worker has to do it all.
        """
        store = self._two_step
        if store is None or self._took > QUICK_SECONDS:
            return None  # a write may have to wait for a disk that is busy with a sync
        began = perf_counter()
        try:
            file = store.write_logs(entries)
        except BaseException as error:
            # Reported later, as any failure of the worker is: to stop the node now, in
            # the middle of its turn, would pull the rest of the turn from under it.
            return self._worker.run(partial(_fail, error))
        if file is None:
            return None  # it needs more than a place at the end, a new segment say

        def synced(failure: Failure | None) -> Failure | None:
            if failure is None:
                store.logs_synced()
                # Not before the sync: this lets the synced note name these entries.
                self._has_stored(entries, began)
            else:
                store.logs_synced(failure.value)
            return failure

        return self._worker.sync(file).addBoth(synced)

    def _done(self, _: None, number: int, began: float) -> None:
        self._ended = self._seconds()
        self._took = self._ended - began
        self.is_idle = True
        self.synced_number = number
        # Not the index that was written: a truncation that was queued meanwhile has
        # lowered this, and what it takes back must not be counted as durable.
        self.synced_index = self._coming_index
        if self._ended - self._hinted_at >= HINT_SECONDS:
            # Ahead of the next write: while that is under way the note is the worker's.
            self._hint(self._ended)
        # The disk gets its next work before anybody is told of the last: it is what
        # all wait for.
        if self._operations:
            self._start()
        self._synced(number)
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1].callback(None)
        if self._flushing:
            self._tell_flushed()

    def _hint(self, now: float) -> None:
        if self._took <= QUICK_SECONDS:  # else it could wait for the disk
            self._hinted_at = now
            self._note.hint()

    def _broke(self, failure: Failure) -> None:
        self.is_idle = True
        # Nothing is written any more: after a failed sync the kernel may have dropped
        # the pages, and would call the next sync a success (PostgreSQL met it in 2018).
        self._broken = failure
        if not failure.check(RaftShutdown):  # a worker that ends has not failed
            self._failed(failure)
        waiting, self._waiting = self._waiting, deque()
        for _, waiter in waiting:
            waiter.errback(failure)
        self._tell_flushed()

    def _store(self, entries: list[Entry]) -> None:
        began = perf_counter()
        done(self._log_store.store_logs, entries)
        self._has_stored(entries, began)

    def _has_stored(self, entries: list[Entry], began: float) -> None:
        self.stores.add(perf_counter() - began)
        self.stored += len(entries)
        newest = entries[-1]
        self._note.end = LogEnd(newest.index, newest.term)

    def _save_state(self, state: HardState, truncate_from: int | None) -> None:
        if truncate_from is not None:
            # The note is lowered in the write that stores the term: one sync for both,
            # and it has to be lowered before the log is truncated.
            self._note.end = self._end_before(truncate_from)
        self._note.save_state(stored_state(state), state.term)

    def _reset_log(self, index: int, keep_suffix: bool) -> None:
        first, last = self._log_store.first_index(), self._log_store.last_index()
        if not keep_suffix:
            # The note goes first: a crash between the two must leave no log that ends
            # below it.
            self._note.lower(LogEnd(index))
        end = min(index, last) if keep_suffix else last
        if first and first <= end:
            done(self._log_store.delete_range, first, end)

    def _truncate_from(self, index: int) -> None:
        last = self._log_store.last_index()
        if index <= last:
            self._note.lower(self._end_before(index))  # first, as in `_reset_log`
            done(self._log_store.delete_range, index, last)

    def _end_before(self, index: int) -> LogEnd:
        """Return where a log ends that is truncated from *index* on."""
        end, log = self._note.end, self._log_store
        if index > end.index:
            return end
        is_here = 0 < log.first_index() < index  # else a snapshot ends right there
        return LogEnd(index - 1, log.get_log(index - 1).term if is_here else 0)

    def _delete_up_to(self, index: int) -> None:
        first = self._log_store.first_index()
        if first and first <= index:
            done(
                self._log_store.delete_range,
                first,
                min(index, self._log_store.last_index()),
            )


def _fail(error: BaseException) -> None:
    raise error
