"""The note of how far the log was synced: when it is written, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_startup import BootCase, snapshot
from tests.node.test_writer import TimedWriterCase, entries
from tests.support.raft_cluster import ClusterCase
from tests.support.two_step_store import TwoStepStore
from txraft.core.configuration import Configuration
from txraft.core.ready import HardState, ResetLog
from txraft.errors import DataCorrupted, StorageError
from txraft.node.startup import Restored, recover
from txraft.node.synced_note import (
    NOTHING,
    LogEnd,
    Noted,
    SyncedNote,
    encoded_note,
    read_note,
)
from txraft.node.writer import (
    BUSY_SECONDS,
    HINT_SECONDS,
    IDLE_SECONDS,
    QUICK_SECONDS,
    stored_state,
)
from txraft.storage.memory import InmemStore


class Notes(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = InmemStore()
        self.store.set_uint64(b"CurrentTerm", 4)

    def test_note_is_read_back(self) -> None:
        """Index and term, as they were noted."""
        self.assertEqual(read_note(self.store).end, NOTHING)

        self.store.set_many(encoded_note(LogEnd(7, 3), 4, 1))

        self.assertEqual(read_note(self.store).end, LogEnd(7, 3))

    def test_note_beside_another_term_does_not_count(self) -> None:
        """A version without notes has changed the term, and perhaps the log."""
        self.store.set_many(encoded_note(LogEnd(7, 3), 4, 1))

        self.store.set_uint64(b"CurrentTerm", 5)

        self.assertEqual(read_note(self.store).end, NOTHING)

    def test_note_of_another_length_does_not_count(self) -> None:
        """Nothing is known from what cannot be read."""
        self.store.set(b"SyncedLog", b"x" * 23)

        self.assertEqual(read_note(self.store).end, NOTHING)

    def test_lower_writes_only_what_is_noted_too_high(self) -> None:
        """A note that is low enough costs no write."""
        note = SyncedNote(self.store, LogEnd(9, 3), Noted(LogEnd(5, 2), number=1), 4)
        note.lower(LogEnd(6, 2))
        self.assertEqual(read_note(self.store).end, NOTHING)

        note.lower(LogEnd(4, 2))

        self.assertEqual(read_note(self.store).end, LogEnd(4, 2))


class NotedStore(TwoStepStore):
    """Tells in its events what is noted with each write of values."""

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        super().set_many(values)
        end = read_note(self).end
        self.events[-1] = f"set {end.index} of term {end.term}"


class NoteCase(TimedWriterCase):
    store: NotedStore

    def make_store(self) -> TwoStepStore:
        return NotedStore()

    def perform(self) -> list[str]:
        """Let the worker do all it has; return what the store saw."""
        while self.worker.perform():
            pass
        events, self.store.events = self.store.events, []
        return [e for e in events if e.split()[0] in ("set", "store", "sync", "delete")]

    def has_noted(self, last: int, term: int = 1) -> None:
        """Have a log that ends at *last*, all of it noted."""
        self.write(entries(1, last, term), hard_state=HardState(term))
        self.writer.note()
        self.perform()


class Noting(NoteCase):
    """When the note is written."""

    def test_term_and_vote_take_the_note_along(self) -> None:
        """What was synced before is noted in the same write."""
        self.write(entries(1, 2))
        self.perform()

        self.write(entries(3, 4), hard_state=HardState(3, "b"))

        self.assertEqual(self.perform(), ["set 2 of term 1", "store 3-4"])

    def test_note_is_written_after_what_it_names_is_synced(self) -> None:
        """Of entries on their way to the disk nothing is known yet."""
        self.write(entries(1, 2))
        self.writer.note()
        self.assertEqual(self.store.events, ["write 1-2"])

        self.assertEqual(self.perform(), ["sync", "set 2 of term 1"])

    def test_incarnations_take_the_note_along(self) -> None:
        """So does whatever else is stored."""
        self.write(entries(1, 2))
        self.perform()

        self.writer.save({b"k": b"v"})

        self.assertEqual(self.perform(), ["set 2 of term 1"])

    def test_commits_have_no_sync_for_the_note(self) -> None:
        """However many there are: one write and one sync each."""
        syncs = sets = 0
        for index in range(1, 1001):
            self.write(entries(index, index))
            self.clock.advance(BUSY_SECONDS / 2002)
            self.writer.tick()
            events = self.perform()
            syncs += events.count("sync")
            sets += len(events) - events.count("sync")

        self.assertEqual((syncs, sets), (1000, 0))

    def test_disk_that_rests(self) -> None:
        """A second after the last write its end is noted, once."""
        self.write(entries(1, 2))
        self.perform()
        self.clock.advance(IDLE_SECONDS - 0.01)
        self.writer.tick()
        self.assertEqual(self.perform(), [])

        self.clock.advance(0.01)
        self.writer.tick()
        self.assertEqual(self.perform(), ["set 2 of term 1"])

        self.clock.advance(100)
        self.writer.tick()
        self.assertEqual(self.perform(), [])

    def test_disk_that_never_rests(self) -> None:
        """It is noted every ten seconds: 101 writes, then 100."""
        noted = []
        for index in range(1, 252):
            self.write(entries(index, index))
            self.clock.advance(0.1)
            self.writer.tick()
            noted += [event for event in self.perform() if event.startswith("set")]

        self.assertEqual(noted, ["set 101 of term 1", "set 201 of term 1"])

    def test_clean_stop(self) -> None:
        """The end of the log is noted as the last write."""
        self.write(entries(1, 2))

        finished = self.writer.finish()

        self.assertNoResult(finished)
        self.assertEqual(self.perform(), ["sync", "set 2 of term 1"])
        self.successResultOf(finished)

    def test_clean_stop_with_nothing_to_note(self) -> None:
        """What is noted is not noted again."""
        self.has_noted(2)

        finished = self.writer.finish()

        self.assertEqual(self.perform(), [])
        self.successResultOf(finished)

    def test_note_that_fails(self) -> None:
        """It is a failed write: nothing follows it."""
        self.write(entries(1, 2))
        error = self.store.set_error = OSError(28, "no space")
        self.writer.note()
        self.perform()

        self.writer.tick()
        finished = self.writer.finish()

        self.successResultOf(finished)
        self.assertEqual([failure.value for failure in self.failures], [error])

    def test_worker_that_was_stopped(self) -> None:
        """A node that crashed has no last words, and nothing has failed."""
        self.write(entries(1, 2))
        self.perform()
        self.worker.discard()

        self.successResultOf(self.writer.finish())

        self.assertEqual(self.failures, [])


class HintingStore(NotedStore):
    """Keeps hints, and tells of them in its events."""

    def __init__(self) -> None:
        super().__init__()
        self.value = b""

    def hint(self, value: bytes) -> None:
        self.value = value
        self.events.append(f"hint {read_note(self).hint.index}")

    def hinted(self) -> bytes:
        return self.value


class Hints(NoteCase):
    """What is known without a sync: it counts beside the note it was given after."""

    def make_store(self) -> TwoStepStore:
        return HintingStore()

    def setUp(self) -> None:
        super().setUp()
        self.has_noted(2)

    def perform(self, after: float = 0.0) -> list[str]:
        """Let the worker do one thing after another; return what the store saw."""
        while self.worker.perform():
            pass
        events, self.store.events = self.store.events, []
        return [e for e in events if e.split()[0] in ("set", "sync", "delete", "hint")]

    def append(self, first: int, last: int, after: float = HINT_SECONDS) -> list[str]:
        """Append entries some time after what was before."""
        self.clock.advance(after)
        self.write(entries(first, last))
        return self.perform()

    def reaches(self) -> LogEnd:
        return read_note(self.store).reaches

    def test_hint_follows_the_sync(self) -> None:
        """Never what is only written."""
        self.clock.advance(HINT_SECONDS)
        self.write(entries(3, 4))
        self.assertEqual(self.reaches(), LogEnd(2, 1))

        self.assertEqual(self.perform(), ["sync", "hint 4"])

        self.assertEqual(self.reaches(), LogEnd(4, 1))
        self.assertEqual(read_note(self.store).end, LogEnd(2, 1))

    def test_hints_are_few(self) -> None:
        """A hundred a second at most; the last one follows at a tick."""
        self.assertEqual(self.append(3, 3), ["sync", "hint 3"])
        self.assertEqual(self.append(4, 4, 0.001), ["sync"])
        self.assertEqual(self.append(5, 5, 0.001), ["sync"])

        self.writer.tick()
        self.assertEqual(self.perform(), ["hint 5"])

        self.writer.tick()
        self.assertEqual(self.perform(), [])

    def test_slow_disk_gets_no_hints(self) -> None:
        """The reactor would wait for it."""
        self.clock.advance(HINT_SECONDS)
        self.write(entries(3, 3))
        self.clock.advance(QUICK_SECONDS * 2)

        self.assertEqual(self.perform(), ["sync"])
        self.writer.tick()
        self.assertEqual(self.perform(), [])

    def test_truncation_does_away_with_the_hint(self) -> None:
        """In one durable write, though the note itself is low enough."""
        self.append(3, 6)

        self.write(entries(5, 5, term=2), truncate_from=5)

        self.assertEqual(self.perform(), ["set 4 of term 1", "delete 5-6"])
        self.assertEqual(self.reaches(), LogEnd(4, 1))

    def test_hint_of_an_earlier_note(self) -> None:
        """It is void, even if the note is later as it was then."""
        self.append(3, 6)
        old = self.store.value
        self.write(entries(3, 3, term=2), truncate_from=3)
        self.perform()
        self.store.value = old

        self.assertEqual(self.reaches(), LogEnd(2, 1))

    def test_hint_of_a_log_that_was_cut(self) -> None:
        """The log is refused, as with a note."""
        self.append(3, 6)
        self.store.delete_range(5, 6)

        def start() -> None:
            recover(
                self.store,
                self.store,
                Restored(),
                read_membership=lambda: Configuration.of_voters("a"),
                protocol_version=1,
                encode=lambda made: None,
            )

        error = self.assertRaises(DataCorrupted, start)

        self.assertIn("ends at index 4, but it was synced up to index 6", str(error))

    def test_hint_that_was_found_is_noted(self) -> None:
        """It was not durable; what is known of the log is, after a rest."""
        self.append(3, 6)
        noted = read_note(self.store)
        again = SyncedNote(self.store, LogEnd(6, 1), noted, 1)
        self.assertTrue(again.is_behind)

        again.lower(LogEnd(5, 1))

        self.assertEqual(self.reaches(), LogEnd(5, 1))

    def test_hint_that_cannot_be_read(self) -> None:
        """It is none, and a truncation makes it void should it come back."""
        self.append(3, 6)
        for error in (PermissionError("state.hint"), StorageError("a directory")):
            old = self.store.value

            def hinted(error: Exception = error) -> bytes:
                raise error

            patched = self.patch(self.store, "hinted", hinted)
            noted = read_note(self.store)
            patched.restore()
            self.assertEqual(noted.reaches, LogEnd(2, 1))

            SyncedNote(self.store, LogEnd(6, 1), noted, 1).lower(LogEnd(2, 1))

            self.assertEqual(self.store.value, old)
            self.assertEqual(self.reaches(), LogEnd(2, 1))

    def test_no_hint_before_the_first_note(self) -> None:
        """There is nothing that it could count beside."""
        self.store = HintingStore()
        note = SyncedNote(self.store, LogEnd(6, 1), Noted(), 1)

        note.hint()

        self.assertEqual(self.store.events, [])


class Lowering(NoteCase):
    """The note is lowered, durably, before the log is."""

    def test_truncation(self) -> None:
        """A crash between the two leaves a log that is longer than its note."""
        self.has_noted(5)

        self.write(entries(3, 4, term=2), truncate_from=3)

        self.assertEqual(self.perform(), ["set 2 of term 1", "delete 3-5", "store 3-4"])

    def test_truncation_above_the_note(self) -> None:
        """It costs nothing."""
        self.has_noted(5)
        self.write(entries(6, 9))
        self.perform()

        self.write(entries(8, 8, term=2), truncate_from=8)
        self.writer.note()

        self.assertEqual(self.perform(), ["delete 8-9", "store 8-8", "set 8 of term 2"])

    def test_truncation_with_a_new_term(self) -> None:
        """One write stores the term and lowers the note."""
        self.has_noted(5)

        self.write(entries(3, 3, 2), truncate_from=3, hard_state=HardState(2))

        self.assertEqual(self.perform(), ["set 2 of term 1", "delete 3-5", "store 3-3"])

    def test_truncation_of_all(self) -> None:
        """The term of what is before the log is not known here."""
        self.has_noted(5)
        self.writer.delete_up_to(2)
        self.perform()

        self.write(entries(3, 3, 2), truncate_from=3)

        self.assertEqual(self.perform(), ["set 2 of term 0", "delete 3-5", "store 3-3"])

    def test_reset(self) -> None:
        """The snapshot that takes its place stands for what the note says."""
        self.has_noted(5)

        self.write(reset_log=ResetLog(3, keep_suffix=False))

        self.assertEqual(self.perform(), ["set 3 of term 0", "delete 1-5"])

    def test_reset_beyond_the_log(self) -> None:
        """The snapshot is above the note: nothing has to be lowered."""
        self.has_noted(5)

        self.write(reset_log=ResetLog(9, keep_suffix=False))
        self.assertEqual(self.perform(), ["delete 1-5"])

        self.write(entries(10, 10))
        self.writer.note()
        self.assertEqual(self.perform(), ["sync", "set 10 of term 1"])

    def test_reset_that_keeps_the_suffix(self) -> None:
        """The log ends where it did."""
        self.has_noted(5)

        self.write(reset_log=ResetLog(3, keep_suffix=True))
        self.writer.note()

        self.assertEqual(self.perform(), ["delete 1-3"])


class Cut(BootCase):
    """A log that ends below what was noted."""

    def note(self, index: int, term: int) -> None:
        self.store.set_many(stored_state(HardState(3)))
        self.store.set_many(encoded_note(LogEnd(index, term), 3, 1))

    def refusal(self, *arguments: object) -> str:
        before = self.store.first_index(), self.store.last_index()
        error = self.assertRaises(DataCorrupted, self.recover, *arguments)
        after = self.store.first_index(), self.store.last_index()
        self.assertEqual(after, before)
        return str(error)

    def test_log_that_was_cut(self) -> None:
        """It is refused, with its end, the end it had, and the ways out."""
        self.note(5, 2)
        self.log(1, 1, 2)

        text = self.refusal()

        self.assertIn("the log ends at index 3", text)
        self.assertIn("synced up to index 5 of term 2", text)
        self.assertIn("join: true", text)
        self.assertIn("txraft recover", text)

    def test_place_is_named(self) -> None:
        """A store that knows where its newest entries are is asked."""
        self.note(5, 2)
        self.store.place = "/data/log/0000000000000007.seg"  # type: ignore[attr-defined]

        self.assertIn("/data/log/0000000000000007.seg: the log is", self.refusal())

    def test_log_that_is_gone(self) -> None:
        """Whether it waited to be added or has bootstrapped one."""
        for listed in (self.listed, type(self.listed)()):
            self.setUp()
            self.listed = listed
            self.note(5, 2)

            self.assertIn("the log is empty", self.refusal())

    def test_entry_of_another_term(self) -> None:
        """It is not the log that was synced."""
        self.note(3, 2)
        self.log(1, 1, 3, 3)

        text = self.refusal()

        self.assertIn("has an entry of term 3 at index 3", text)

    def test_log_that_reaches_the_note(self) -> None:
        """Or goes on behind it."""
        for terms in ((1, 1, 2), (1, 1, 2, 3)):
            self.setUp()
            self.note(3, 2)
            self.log(*terms)

            recovered = self.recover()

            self.assertEqual(recovered.noted.end, LogEnd(3, 2))
            self.assertEqual(recovered.warnings, [])

    def test_snapshot_at_the_note_stands_for_it(self) -> None:
        """The log may end anywhere then; what is dropped is told."""
        self.note(5, 2)
        self.log(1, 1, 2)

        recovered = self.recover(snapshot(5, 2))

        self.assertEqual(recovered.log.last_index, 5)
        self.assertIn("synced up to 5 once, so it was cut", recovered.warnings[0])

    def test_snapshot_below_the_note(self) -> None:
        """It does not have what is missing."""
        self.note(5, 2)
        for terms in ((), (1, 1), (1, 1, 2, 2)):
            self.store.delete_range(1, 9)
            self.log(*terms)
            self.refusal(snapshot(4, 2))

    def test_note_is_lowered_before_a_log_is_dropped(self) -> None:
        """A log that disagrees with the snapshot goes; a crash comes in between."""
        self.note(3, 1)
        self.log(1, 1, 1)
        cut: list[LogEnd] = []
        deleting = self.store.delete_range

        def delete_range(first: int, last: int) -> None:
            cut.append(read_note(self.store).end)
            deleting(first, last)

        self.store.delete_range = delete_range  # type: ignore[method-assign]

        recovered = self.recover(snapshot(2, 2))

        self.assertEqual((cut, recovered.noted.end), ([LogEnd(2, 2)], LogEnd(2, 2)))


class Nodes(ClusterCase):
    """Whole nodes note what they have, and refuse what is not it."""

    def test_clean_stop_is_noted(self) -> None:
        """A log that loses an entry afterwards is refused."""
        cluster = self.cluster(1)
        cluster.apply(b"x")
        store = cluster._stores["a"].store
        cluster.result(cluster.leader.raft.shutdown())
        del cluster.nodes["a"]
        last = store.last_index()
        self.assertEqual(read_note(store).reaches.index, last)
        store.delete_range(last, last)

        node = cluster.start_node("a")
        started = self.outcome(node.started)
        cluster.advance(0.1)

        error = self.assertFailedWith(started, DataCorrupted)
        self.assertIn(f"synced up to index {last}", str(error))
        cluster.result(node.raft.shutdown())

    def test_snapshot_is_noted(self) -> None:
        """The log was synced at least as far as a snapshot of its own reaches."""
        cluster = self.cluster(1)
        cluster.apply(b"x")
        store = cluster._stores["a"].store

        cluster.result(cluster.leader.raft.snapshot())
        cluster.advance(0.01)

        self.assertEqual(read_note(store).reaches.index, cluster.leader.raft.last_index)

    def test_rest_is_noted(self) -> None:
        """A node that has nothing to write has noted all it wrote."""
        cluster = self.cluster(3)
        cluster.apply(b"x")

        cluster.advance(IDLE_SECONDS + 0.5)

        for address in "abc":
            store = cluster._stores[address].store
            self.assertEqual(read_note(store).reaches.index, store.last_index())
