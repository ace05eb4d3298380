"""The state machine against a dict, and its snapshots."""

import io
import tracemalloc
from collections.abc import Sequence

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError
from txraft.interfaces import FSM, BatchingFSM
from txraft.kv import state as state_module
from txraft.kv.commands import encode_advertise, encode_delete, encode_put
from txraft.kv.state import KeyValueFSM, Record

KEYS = st.sampled_from(["a", "a/b", "é", "z\x00"])
VALUES = st.binary(max_size=3)
PUTS = st.tuples(st.just("put"), KEYS, VALUES, st.integers(0, 2))
DELETES = st.tuples(st.just("delete"), KEYS)
WORKLOADS = st.lists(PUTS | DELETES, max_size=30)


class Sink:
    """A snapshot sink that keeps its pieces."""

    id = "1"

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.pieces.append(data)
        return len(data)

    def close(self) -> None:
        raise AssertionError("persist does not close its sink")

    def cancel(self) -> None:
        raise AssertionError("persist does not cancel its sink")


def entry(index: int, data: bytes | None) -> Entry:
    return Entry(index, 1, LogType.COMMAND, data)


def encode(operation: Sequence[object]) -> bytes:
    verb, *arguments = operation
    return encode_put(*arguments) if verb == "put" else encode_delete(*arguments)


def fsm_after(*commands: bytes) -> KeyValueFSM:
    fsm = KeyValueFSM()
    for index, command in enumerate(commands, 1):
        fsm.apply(entry(index, command))
    return fsm


def stream(*records: object) -> io.BytesIO:
    return io.BytesIO(b"".join(map(msgpack.packb, records)))


def snapshot_of(fsm: KeyValueFSM) -> bytes:
    sink = Sink()
    snapshot = fsm.snapshot()
    snapshot.persist(sink)
    snapshot.release()
    return b"".join(sink.pieces)


class Apply(SynchronousTestCase):
    """What each verb does."""

    def test_class_is_a_batching_fsm(self) -> None:
        fsm: FSM = KeyValueFSM()

        self.assertIsInstance(fsm, BatchingFSM)

    def test_apply_put_creates(self) -> None:
        fsm = KeyValueFSM()

        answer = fsm.apply(entry(7, encode_put("k", b"v", 3)))

        self.assertIs(answer, True)
        self.assertEqual(fsm.get("k"), Record("k", b"v", 3, 7, 7, 0))
        self.assertEqual((len(fsm), list(fsm), fsm.index), (1, ["k"], 7))

    def test_apply_put_updates(self) -> None:
        """CreateIndex stays, ModifyIndex follows the log."""
        fsm = fsm_after(encode_put("k", b"v"), encode_put("k", b"w", 1))

        self.assertEqual(fsm.get("k"), Record("k", b"w", 1, 1, 2, 0))

    def test_apply_put_of_the_same_keeps_the_modify_index(self) -> None:
        """A write that changes nothing wakes nobody."""
        fsm = fsm_after(encode_put("k", b"v"), encode_put("k", b"v"))

        self.assertEqual(fsm.get("k"), Record("k", b"v", 0, 1, 1, 0))
        self.assertEqual(fsm.index, 1)

    def test_apply_put_of_other_flags_only_is_a_change(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"), encode_put("k", b"v", 1))

        self.assertEqual(fsm.get("k"), Record("k", b"v", 1, 1, 2, 0))

    def test_apply_delete_then_put_creates_anew(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"), encode_delete("k"))
        self.assertIsNone(fsm.get("k"))
        self.assertEqual(fsm.index, 2)

        fsm.apply(entry(3, encode_put("k", b"v")))

        self.assertEqual(fsm.get("k"), Record("k", b"v", 0, 3, 3, 0))

    def test_apply_delete_of_an_absent_key(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"))

        answer = fsm.apply(entry(2, encode_delete("absent")))

        self.assertIs(answer, True)
        self.assertEqual(fsm.index, 1)

    def test_apply_advertise(self) -> None:
        """It is no key: neither the index nor the keys show it."""
        fsm = fsm_after(encode_put("k", b"v"))
        called: list[str | None] = []
        fsm.on_advertise = lambda: called.append(fsm.http_url("a:1"))

        fsm.apply(entry(2, encode_advertise("a:1", "http://a:2")))

        self.assertEqual(called, ["http://a:2"])
        self.assertIsNone(fsm.http_url("b:1"))
        self.assertEqual((fsm.index, list(fsm)), (1, ["k"]))

    def test_apply_advertise_is_bounded(self) -> None:
        self.patch(state_module, "MAX_ADVERTISED", 1)
        fsm = fsm_after(encode_advertise("a:1", "u"))

        fsm.apply(entry(2, encode_advertise("a:1", "v")))

        self.assertRaises(
            ApplicationError, fsm.apply, entry(3, encode_advertise("b:1", "u"))
        )
        self.assertEqual((fsm.http_url("a:1"), fsm.http_url("b:1")), ("v", None))

    def test_apply_refused_changes_nothing(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"))
        before = fsm.digest()

        self.assertRaises(ApplicationError, fsm.apply, entry(2, b"garbage"))

        self.assertEqual(fsm.digest(), before)

    def test_apply_batch_answers_in_order(self) -> None:
        """A refusal stands in its own place and stops nothing."""
        commands = [encode_put("a", b""), b"garbage", encode_delete("a")]
        fsm = KeyValueFSM()

        answers = fsm.apply_batch([entry(i, c) for i, c in enumerate(commands, 1)])

        self.assertEqual([answers[0], answers[2]], [True, True])
        self.assertIsInstance(answers[1], ApplicationError)
        self.assertEqual((len(fsm), fsm.index), (0, 3))

    @given(WORKLOADS)
    def test_apply_equals_a_dict(self, workload: list[tuple[object, ...]]) -> None:
        """The content is what a dict would hold after the same operations."""
        model: dict[object, tuple[object, ...]] = {}
        fsm = fsm_after(*map(encode, workload))

        for verb, key, *rest in workload:
            if verb == "put":
                model[key] = tuple(rest)
            else:
                model.pop(key, None)

        found = {r.key: (r.value, r.flags) for r in map(fsm.get, fsm) if r is not None}
        self.assertEqual(found, model)

    @given(WORKLOADS, st.integers(0, 30))
    def test_apply_batch_equals_apply(
        self, workload: list[tuple[object, ...]], split: int
    ) -> None:
        """However the log is cut into batches, the state is the same."""
        entries = [entry(i, encode(o)) for i, o in enumerate(workload, 1)]
        batched = KeyValueFSM()

        batched.apply_batch(entries[:split])
        batched.apply_batch(entries[split:])

        self.assertEqual(batched.digest(), fsm_after(*map(encode, workload)).digest())


class Digest(SynchronousTestCase):
    """Equal content has an equal digest, and nothing else has."""

    def test_digest_ignores_insertion_order(self) -> None:
        """A replica restored from a snapshot may hold its keys in another order."""
        records = [[1, f"k{i}", b"v", 0, i, i, 0] for i in (1, 2, 3)]
        urls = [[2, f"a:{i}", "u"] for i in (1, 2, 3)]
        header, end = [0, "txraft-kv", 1, 3], [3, 6]
        one, other = KeyValueFSM(), KeyValueFSM()

        one.restore(stream(header, *records, *urls, end))
        other.restore(stream(header, *urls[::-1], *records[::-1], end))

        self.assertNotEqual(list(one), list(other))
        self.assertEqual(one.digest(), other.digest())

    def test_digest_sees_each_part(self) -> None:
        base = [encode_put("k", b"v"), encode_put("l", b"v")]
        variants = [
            [*base, encode_delete("k")],
            [*base, encode_put("k", b"w")],
            [*base, encode_put("k", b"v", 1)],
            [*base, encode_advertise("a:1", "u")],
            [base[1], base[0]],
            base,
        ]

        digests = {fsm_after(*variant).digest() for variant in variants}

        self.assertEqual(len(digests), len(variants))


class Snapshots(SynchronousTestCase):
    """A snapshot is the state at the moment of its capture, and restores to it."""

    @given(WORKLOADS)
    def test_restore_gives_the_same_digest(
        self, workload: list[tuple[object, ...]]
    ) -> None:
        fsm = fsm_after(encode_advertise("a:1", "u"), *map(encode, workload))
        restored = fsm_after(encode_put("other", b"state"))

        restored.restore(io.BytesIO(snapshot_of(fsm)))

        self.assertEqual(restored.digest(), fsm.digest())
        self.assertEqual(restored.index, fsm.index)

    def test_restore_replaces_and_never_merges(self) -> None:
        restored = fsm_after(encode_put("old", b"v"), encode_advertise("old:1", "u"))

        restored.restore(io.BytesIO(snapshot_of(fsm_after(encode_put("new", b"v")))))

        self.assertEqual(list(restored), ["new"])
        self.assertIsNone(restored.http_url("old:1"))

    def test_snapshot_does_not_see_what_is_applied_after_it(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"))
        snapshot, sink, expected = fsm.snapshot(), Sink(), fsm.digest()

        fsm.apply(entry(2, encode_put("k", b"w")))
        fsm.apply(entry(3, encode_put("l", b"w")))
        fsm.apply(entry(4, encode_advertise("a:1", "u")))
        snapshot.persist(sink)

        restored = KeyValueFSM()
        restored.restore(io.BytesIO(b"".join(sink.pieces)))
        self.assertEqual(restored.digest(), expected)

    def test_restored_state_goes_on(self) -> None:
        """Restoring and applying commute."""
        fsm, restored = fsm_after(encode_put("k", b"v")), KeyValueFSM()
        restored.restore(io.BytesIO(snapshot_of(fsm)))

        for each in (fsm, restored):
            each.apply(entry(2, encode_put("k", b"w")))

        self.assertEqual(restored.digest(), fsm.digest())


class Memory(SynchronousTestCase):
    """50 000 keys of 256 bytes fit in 30 MiB, on a live and on a restored node."""

    KEYS = 50_000
    LIMIT_BYTES = 30 << 20

    def held_bytes(self, make: object) -> int:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        kept = make()  # type: ignore[operator]
        held, _peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertEqual(len(kept), self.KEYS)
        return held

    def filled(self) -> KeyValueFSM:
        fsm = KeyValueFSM()
        for index in range(1, self.KEYS + 1):
            value = index.to_bytes(4) * 64
            fsm.apply(entry(index, encode_put(f"some/key/{index:06}", value)))
        return fsm

    def test_memory_of_a_live_state(self) -> None:
        self.assertLess(self.held_bytes(self.filled), self.LIMIT_BYTES)

    def test_memory_of_a_restored_state(self) -> None:
        data = snapshot_of(self.filled())

        def restored() -> KeyValueFSM:
            fsm = KeyValueFSM()
            fsm.restore(io.BytesIO(data))
            return fsm

        self.assertLess(self.held_bytes(restored), self.LIMIT_BYTES)
