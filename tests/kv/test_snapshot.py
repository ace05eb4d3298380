"""The bytes of a snapshot: their shape, their pieces, and broken ones refused."""

import io

from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_state import Sink, fsm_after, snapshot_of, stream
from txraft.errors import DataCorrupted, FormatTooNew
from txraft.kv.commands import encode_advertise, encode_put
from txraft.kv.snapshot import MAX_PIECE_BYTES, read_state
from txraft.kv.state import KeyValueFSM

HEADER = [0, "txraft-kv", 2, 9, 9]
RECORD = [1, "k", b"v", 0, 3, 4, 0, ""]
URL = [2, "a:1", "u"]


class Format(SynchronousTestCase):
    """Snapshots outlive releases, so their bytes must not change by accident."""

    def test_persist_bytes(self) -> None:
        fsm = fsm_after(encode_put("k", b"v", 5), encode_advertise("a:1", "u"))

        self.assertEqual(
            snapshot_of(fsm),
            stream(
                [0, "txraft-kv", 2, 1, 0], [1, "k", b"v", 5, 1, 1, 0, ""], URL, [3, 2]
            ).getvalue(),
        )

    def test_persist_pieces_are_bounded_and_whole(self) -> None:
        """Many small records share a piece; a large one is cut into several."""
        small = [encode_put(f"small/{i}", bytes(100)) for i in range(100)]
        fsm = fsm_after(*small, encode_put("large", bytes(5 << 19)))
        sink = Sink()

        fsm.snapshot().persist(sink)

        self.assertLessEqual(max(map(len, sink.pieces)), MAX_PIECE_BYTES)
        self.assertEqual(len(sink.pieces), 5)
        restored = KeyValueFSM()
        restored.restore(io.BytesIO(b"".join(sink.pieces)))
        self.assertEqual(restored.digest(), fsm.digest())


class Refusals(SynchronousTestCase):
    """A stream that no state makes is refused, and the state stays as it was."""

    def assert_refused(self, *records: object) -> None:
        self.assertRaises(DataCorrupted, read_state, stream(*records))

    def test_read_state_accepts_a_good_one(self) -> None:
        """The streams below differ from this one in a single point."""
        state = read_state(stream(HEADER, RECORD, URL, [3, 2]))

        self.assertEqual(state.rows, {"k": (b"v", 0, 3, 4, 0, "")})
        self.assertEqual((state.urls, state.index), ({"a:1": "u"}, 9))

    def test_read_state_cut_anywhere(self) -> None:
        whole = stream(HEADER, RECORD, URL, [3, 2]).getvalue()

        for length in range(len(whole)):
            cut = io.BytesIO(whole[:length])
            self.assertRaises(DataCorrupted, read_state, cut)

    def test_read_state_header(self) -> None:
        self.assert_refused(RECORD, [3, 1])
        self.assert_refused([0, "other", 1, 9], [3, 0])
        self.assert_refused([0, "txraft-kv", 0, 9], [3, 0])
        self.assert_refused([0, "txraft-kv", 1, -9], [3, 0])
        self.assert_refused([0, "txraft-kv", 1], [3, 0])
        self.assert_refused({}, [3, 0])

    def test_read_state_newer_version_is_named(self) -> None:
        error = self.assertRaises(
            FormatTooNew, read_state, stream([0, "txraft-kv", 4, {"later": 1}])
        )
        self.assertIn("version 4", str(error))

    def test_read_state_count(self) -> None:
        self.assert_refused(HEADER, RECORD, [3, 2])
        self.assert_refused(HEADER, RECORD, URL, [3, 1])
        self.assert_refused(HEADER, RECORD, [3, True])
        self.assert_refused(HEADER, RECORD, [3])

    def test_read_state_bytes_after_the_end(self) -> None:
        self.assert_refused(HEADER, RECORD, [3, 1], RECORD)
        self.assert_refused(HEADER, RECORD, [3, 1], None)

    def test_read_state_twice_the_same(self) -> None:
        self.assert_refused(HEADER, RECORD, RECORD, [3, 2])
        self.assert_refused(HEADER, URL, URL, [3, 2])

    def test_read_state_malformed_records(self) -> None:
        for record in (
            [1, "k", b"v", 0, 3, 4],
            [1, b"k", b"v", 0, 3, 4, 0, ""],
            [1, "", b"v", 0, 3, 4, 0, ""],
            [1, "k", "v", 0, 3, 4, 0, ""],
            [1, "k", b"v", -1, 3, 4, 0, ""],
            [1, "k", b"v", 0, 0, 4, 0, ""],
            [1, "k", b"v", 0, 5, 4, 0, ""],
            [1, "k", b"v", 0, 3, 10, 0, ""],
            [1, "k", b"v", 0, 3, 4, None, ""],
            [2, "a:1", 1],
            [2, "a:1"],
            [1, "k", b"v", 0, 3, 4, 0, None],
            [1, "k", b"v", 0, 3, 4, 0],
            [4, "k"],
            [8, "k"],
            HEADER,
            ["k"],
            [],
            None,
            {},
        ):
            self.assert_refused(HEADER, record, [3, 1])

    def test_restore_refused_keeps_the_state(self) -> None:
        fsm = fsm_after(encode_put("k", b"v"))
        before = fsm.digest()

        self.assertRaises(DataCorrupted, fsm.restore, stream(HEADER, RECORD))

        self.assertEqual(fsm.digest(), before)
