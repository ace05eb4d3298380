"""Readers of a connection: any pieces, any garbage, and every limit."""

from __future__ import annotations

import time
from itertools import pairwise

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.go_captures import read_request, read_response
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
    Header,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
)
from txraft.errors import ProtocolError
from txraft.wire.entries import encode_new
from txraft.wire.requests import encode_request, request_kind
from txraft.wire.responses import encode_error, encode_response
from txraft.wire.stream import MessageLimits, RequestReader, ResponseReader

SMALL = MessageLimits(
    max_message_bytes=10_000,
    max_response_bytes=1_000,
    max_string_bytes=5_000,
    max_entries=100,
    max_keys=16,
    max_lists=4,
    max_snapshot_bytes=1_000_000,
)

numbers = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
data = st.none() | st.binary(max_size=300)
headers = st.builds(
    Header,
    st.none() | st.integers(0, 3),
    st.none() | names,
    st.none() | names,
    st.none() | st.binary(min_size=16, max_size=16),
    forwards=st.none() | st.integers(0, 9),
)
places = st.lists(st.tuples(numbers, numbers), max_size=20).map(tuple)


@st.composite
def appends(draw: st.DrawFn) -> AppendEntriesRequest:
    """Draw an AppendEntries with consecutive entries, encoded or not."""
    previous = draw(st.integers(0, 2**63))
    entries = []
    for index in range(previous + 1, previous + 1 + draw(st.integers(0, 20))):
        type_ = draw(st.sampled_from([LogType.COMMAND, LogType.NOOP, LogType.BARRIER]))
        entry = Entry(index, draw(numbers), type_, draw(data), draw(data))
        if draw(st.booleans()):
            encode_new(entry, draw(st.integers(0, 3)))
        entries.append(entry)
    made = draw(st.sampled_from([tuple(entries), entries]))
    return AppendEntriesRequest(
        draw(numbers),
        draw(names),
        previous,
        draw(numbers),
        made or (),
        draw(numbers),
        draw(headers),
    )


requests: st.SearchStrategy[AnyRequest] = st.one_of(
    appends(),
    st.builds(
        RequestVoteRequest, numbers, names, numbers, numbers, st.booleans(), headers
    ),
    st.builds(TimeoutNowRequest, headers, st.none() | numbers),
    st.builds(
        lambda term, name, index, at, transfer: RequestPreVoteRequest(
            term, name, index, at, Header(3, "id", name), transfer
        ),
        numbers,
        names,
        numbers,
        numbers,
        st.none() | numbers,
    ),
    st.builds(ForwardRequest, st.lists(st.binary(), max_size=20).map(tuple), headers),
)
responses: st.SearchStrategy[AnyResponse] = st.one_of(
    st.builds(
        AppendEntriesResponse, numbers, numbers, st.booleans(), st.booleans(), headers
    ),
    st.builds(
        RequestVoteResponse,
        numbers,
        st.booleans(),
        st.none() | st.lists(names, max_size=5, unique=True).map(tuple),
        headers,
    ),
    st.builds(ForwardResponse, places, st.none() | names, headers),
)
KINDS = {AppendEntriesResponse: 0, RequestVoteResponse: 1, ForwardResponse: 20}


def _plain(request: AnyRequest) -> AnyRequest:
    """Make sequences of entries comparable."""
    if isinstance(request, AppendEntriesRequest):
        fields = {name: getattr(request, name) for name in request.__slots__}
        return AppendEntriesRequest(**{**fields, "entries": list(request.entries)})
    return request


class RoundTrips(SynchronousTestCase):
    @given(requests)
    def test_request_survives(self, request: AnyRequest) -> None:
        """Whatever we send we read back."""
        encoded = encode_request(request)
        self.assertEqual(_plain(read_request(encoded)), _plain(request))
        self.assertEqual(encode_request(read_request(encoded)), encoded)

    @given(responses)
    def test_response_survives(self, response: AnyResponse) -> None:
        """Whatever we answer is read back."""
        kind = KINDS[type(response)]
        self.assertEqual(read_response(kind, encode_response(response)), ("", response))

    @given(st.text(max_size=300).filter(bool))
    def test_error_survives(self, error: str) -> None:
        """Any error text is read back."""
        if error.encode("utf-8", "replace").decode() == error:
            self.assertEqual(read_response(0, encode_error(error)), (error, None))

    @given(requests)
    def test_keys_ascend(self, request: AnyRequest) -> None:
        """Go writes keys in ascending byte order, and so do we."""
        fields = msgpack.unpackb(encode_request(request)[1:], raw=True)
        self.assertEqual(list(fields), sorted(fields))

    @given(st.lists(requests, min_size=1, max_size=6), st.data())
    def test_requests_survive_any_cut(self, sent: list[AnyRequest], at: st.DataObject):
        """Pieces of any size make the same requests."""
        stream = b"".join(encode_request(request) for request in sent)
        reader, got = RequestReader(), []
        while stream:
            size = at.draw(st.integers(1, len(stream)))
            reader.feed(stream[:size])
            stream = stream[size:]
            while (request := reader.read()) is not None:
                got.append(request)
        self.assertEqual([_plain(r) for r in got], [_plain(r) for r in sent])

    @given(st.binary(max_size=200), st.sampled_from((*range(5), 20)))
    @settings(max_examples=300)
    def test_random_bytes_make_requests_or_errors(self, body: bytes, kind: int):
        """Nothing but ProtocolError comes of garbage."""
        reader = RequestReader(SMALL)
        try:
            reader.feed(bytes([kind]) + body)
            while reader.body_left == 0 and reader.read() is not None:
                pass
        except ProtocolError:
            pass
        answers = ResponseReader(SMALL)
        try:
            answers.feed(body)
            while answers.read(kind) is not None:
                pass
        except ProtocolError:
            pass


class Bodies(SynchronousTestCase):
    def test_body_stands_between_requests(self) -> None:
        """Exactly `Size` raw bytes follow the map; then the next request."""
        announced = InstallSnapshotRequest(
            3, "a:1", 9, 2, 1000, Configuration.of_voters(["a:1"]), 4, ("a:1",)
        )
        body = bytes(range(250)) * 4
        stream = encode_request(announced) + body + b"\x03\x80"
        for step in (1, 7, 10_000):
            reader, got, pieces = RequestReader(SMALL), [], b""
            for start in range(0, len(stream), step):
                reader.feed(stream[start : start + step])
                while reader.body_left or (request := reader.read()) is not None:
                    if reader.body_left:
                        piece = reader.read_body(64)
                        if not piece:
                            break
                        pieces += piece
                        if reader.body_left:
                            continue
                        request = announced
                    got.append(request)
            self.assertEqual(pieces, body)
            self.assertEqual([type(request) for request in got][-1], TimeoutNowRequest)
            self.assertEqual(reader.pending_bytes, 0)

    def test_body_does_not_count_as_a_message(self) -> None:
        """A body may be larger than a message, and the next request still reads."""
        reader = RequestReader(SMALL)
        announced = InstallSnapshotRequest(
            3, "a:1", 9, 2, 500_000, Configuration.of_voters(["a:1"]), 4, ("a:1",)
        )
        reader.feed(encode_request(announced))
        self.assertIsNotNone(reader.read())
        for _ in range(50):
            reader.feed(bytes(10_000))
            self.assertEqual(len(reader.read_body(10_000)), 10_000)
        reader.feed(b"\x03\x80")
        self.assertEqual(reader.read(), TimeoutNowRequest())

    def test_body_larger_than_its_limit_is_refused(self) -> None:
        """No snapshot may announce more than the limit, nor less than nothing."""
        for size in (b"\xce\x00\x0f\x42\x41", b"\xff", b"\xcf" + b"\xff" * 8):
            reader = RequestReader(SMALL)
            reader.feed(b"\x02\x81\xa4Size" + size)
            self.assertRaises(ProtocolError, reader.read)


class LongStreams(SynchronousTestCase):
    def test_limits_count_each_message_for_itself(self) -> None:
        """A connection lives for ever; only single messages are bounded."""
        entries = [Entry(1, 1, LogType.NOOP), Entry(2, 1, LogType.NOOP)]
        encoded = encode_request(AppendEntriesRequest(1, "a:1", entries=entries))
        reader = RequestReader(SMALL)
        for _ in range(500):
            reader.feed(encoded * 5)
            for _ in range(5):
                self.assertIsNotNone(reader.read())
            self.assertIsNone(reader.read())

    def test_error_belongs_to_its_own_answer(self) -> None:
        """An answer behind an error is read for itself."""
        fine = AppendEntriesResponse(3, 5, True)
        reader = ResponseReader(SMALL)
        reader.feed((encode_error("no") + encode_response(fine)) * 2)
        for _ in range(2):
            self.assertEqual(reader.read(0), ("no", None))
            self.assertEqual(reader.read(0), ("", fine))
        self.assertIsNone(reader.read(0))


class LimitsHold(SynchronousTestCase):
    def refused(self, stream: bytes, step: int = 512) -> int:
        """Feed *stream* until it is refused; return how much was taken in."""
        reader = RequestReader(SMALL)
        for start in range(0, len(stream), step):
            try:
                reader.feed(stream[start : start + step])
                while reader.read() is not None:
                    pass
            except ProtocolError:
                return start + step
        raise AssertionError("it was not refused")

    def test_message_that_never_ends(self) -> None:
        """A string, a list of strings and a map without end stop at the limit."""
        limit = SMALL.max_message_bytes + 512
        zeros = bytes(100_000)
        for endless in (
            b"\x00\x81\xa6Leader\xdb\xff\xff\xff\xff" + zeros,
            b"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff" + zeros,
            b"\x00\xdf\xff\xff\xff\xff" + b"\xa1a\x00" * 30_000,
            b"\x00\x81\xa1x\xdc\x00\x64" + b"\xda\x0f\xa0".ljust(4003) * 100,
        ):
            self.assertLessEqual(self.refused(endless), limit)

    def test_whole_message_that_is_too_large(self) -> None:
        """The limit also holds for a message that is complete in one read."""
        body = msgpack.packb({b"x": [bytes(4000)] * 3}, use_bin_type=False)
        self.refused(b"\x00" + body, step=1 << 20)

    def test_message_at_the_limit_is_read(self) -> None:
        """The limits refuse nothing that they allow."""
        entries = [
            Entry(index, 1, LogType.COMMAND, bytes(40)) for index in range(1, 101)
        ]
        encoded = encode_request(AppendEntriesRequest(1, "a:1", entries=entries))
        self.assertLess(len(encoded), SMALL.max_message_bytes)
        reader = RequestReader(SMALL)
        reader.feed(encoded)
        request = reader.read()
        assert isinstance(request, AppendEntriesRequest)
        self.assertEqual(len(request.entries), 100)

    def test_bombs_of_many_small_objects(self) -> None:
        """Nested lists, many lists and many maps are refused, however small."""
        for bomb in (
            b"\x91" * 5000,
            b"\x81\xa1x" * 3000,
            b"\x81\xa1x\xdc\x00\x64" + b"\x90" * 100,
            b"\x81\xa1x\xdc\x00\x64" + b"\x91\x80" * 100,
            b"\x81\xa1x\x92" + (b"\xdc\x00\x64" + b"\x80" * 100) * 2,
        ):
            self.refused(b"\x00" + bomb, step=1 << 20)

    def test_value_that_is_announced_too_large(self) -> None:
        """Its length is enough: no more of it is waited for than tells it is one."""
        for header, reason in (
            (b"\xc6\x80\x00\x00\x00", "a message is larger than 10000 bytes"),
            (b"\xdb\xff\xff\xff\xff", "a message is larger than 10000 bytes"),
            (b"\xc9\x7f\xff\xff\xff", "a message is larger than 10000 bytes"),
            (b"\xc6\x00\x00\x13\x89", "a value of 5001 bytes is larger than"),
        ):
            message = b"\x00\x81\xa7Entries" + header + bytes(8)
            for cut in range(len(message)):
                reader = RequestReader(SMALL)
                reader.feed(message[:cut])
                self.assertIsNone(reader.read())
                reader.feed(message[cut:])
                error = self.assertRaises(ProtocolError, reader.read)
                self.assertIn(reason, str(error))
            reader = RequestReader(SMALL)
            for byte in message[:-1]:
                reader.feed(bytes([byte]))
                self.assertIsNone(reader.read())
            reader.feed(message[-1:])
            self.assertRaises(ProtocolError, reader.read)

    def test_answer_that_is_announced_too_large(self) -> None:
        """The same holds for what a listener answers."""
        reader = ResponseReader(SMALL)
        reader.feed(b"\xa0\x81\xa4Term\xdb\x80\x00\x00\x00" + bytes(8))

        self.assertRaises(ProtocolError, reader.read, 0)

    def test_length_that_might_be_a_shorter_one(self) -> None:
        """It is refused as soon as a shorter value would have been complete."""
        for header, enough in (
            (b"\xc6\x80\xc5\xff\xff", 65_536),
            (b"\xc6\x80\x00\xc4\xff", 256),
            (b"\xc6\x80\x00\x00\xbf", 31),
            (b"\xc6\x80\x00\x00\xd8", 17),
        ):
            reader = RequestReader(MessageLimits(max_string_bytes=1 << 20))
            reader.feed(b"\x00\x81\xa7Entries" + header + bytes(enough - 1))
            self.assertIsNone(reader.read())
            reader.feed(b"\x00")
            self.assertRaises(ProtocolError, reader.read)

    @given(
        st.lists(
            st.lists(st.sampled_from(b"\xc6\xc5\xc4\xdb\xbf\xff\xd8\x00"), max_size=40)
            | st.just([0xC6] * 300)
            | st.just([0xFF] * 70_000),
            max_size=12,
        ),
        st.data(),
    )
    @settings(max_examples=200, deadline=None)
    def test_nothing_is_mistaken_for_a_length(
        self, values: list[list[int]], at: st.DataObject
    ) -> None:
        """Whatever stands before a value, and wherever the pieces end."""
        fields = {b"Strange": [bytes(value) for value in values], b"Term": 1}
        message = b"\x00" + msgpack.packb(fields)
        cuts = at.draw(st.lists(st.integers(0, len(message) - 1), max_size=30))
        reader = RequestReader(MessageLimits())

        found = None
        for begin, end in pairwise([0, *sorted(cuts), len(message)]):
            self.assertIsNone(found)
            reader.feed(message[begin:end])
            found = reader.read() if begin < end else found

        self.assertIsInstance(found, AppendEntriesRequest)

    def test_entries_out_of_order_are_refused(self) -> None:
        """Entries follow the previous one, each the one before it."""
        for indexes in ((2,), (1, 3), (1, 1), (0,)):
            entries = [Entry(index, 1, LogType.NOOP) for index in indexes]
            encoded = encode_request(AppendEntriesRequest(1, "a:1", entries=entries))
            self.assertRaises(ProtocolError, read_request, encoded)

    def test_large_values_make_short_errors(self) -> None:
        """An error text does not repeat what a peer has sent."""
        for value in (b"x" * 4000, [b"x" * 900] * 4, {b"k": b"x" * 4000}):
            body = msgpack.packb({b"Term": value}, use_bin_type=False)
            error = self.assertRaises(ProtocolError, read_request, b"\x00" + body)
            self.assertLess(len(str(error)), 100)

    def test_unread_input_behind_a_message_is_bounded(self) -> None:
        """A connection that is not read any more cannot be fed for ever."""
        reader = RequestReader(
            MessageLimits(max_message_bytes=1000, max_ahead_bytes=1000)
        )
        with self.assertRaises(ProtocolError):
            for _ in range(10):
                reader.feed(b"\x03\x80" * 400)

    def test_work_is_linear_in_the_bytes(self) -> None:
        """Bytes that come one by one cost the same each, late or early."""
        entry = Entry(1, 1, LogType.COMMAND, bytes(200_000))
        encoded = encode_request(AppendEntriesRequest(1, "a:1", entries=[entry]))
        reader, spent = RequestReader(), []
        for start in range(0, 200_000, 50_000):
            began = time.process_time()
            for at in range(start, start + 50_000):
                reader.feed(encoded[at : at + 1])
                self.assertIsNone(reader.read())
            spent.append(time.process_time() - began)
        self.assertLess(spent[-1], 8 * min(spent[:2]) + 0.05)

    def test_other_protocols_are_named(self) -> None:
        """The first byte tells who has called."""
        for first, word in (
            (b"GET / HTTP/1.1", "HTTP"),
            (b"POST / HTTP/1.1", "HTTP"),
            (b"HEAD / HTTP/1.1", "HTTP"),
            (b"DELETE / HTTP/1.1", "HTTP"),
            (b"OPTIONS * HTTP/1.1", "HTTP"),
            (b"\x16\x03\x01", "TLS"),
            (b"\x80\x2e\x01", "unknown request type 128"),
        ):
            reader = RequestReader()
            reader.feed(first)
            error = self.assertRaises(ProtocolError, reader.read)
            self.assertIn(word, str(error))

    def test_kinds_are_the_type_bytes(self) -> None:
        """The first byte of what we write is the kind."""
        request = TimeoutNowRequest()
        self.assertEqual(encode_request(request)[0], request_kind(request))
