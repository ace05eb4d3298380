"""Bytes captured from real peers decode, and encode to the same bytes again."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.support.go_captures import KINDS, load, messages, read_request, read_response
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowResponse,
)
from txraft.errors import ProtocolError
from txraft.wire.entries import decode_entry, encode_entry
from txraft.wire.fields import pack
from txraft.wire.membership import (
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)
from txraft.wire.requests import decode_request, encode_request
from txraft.wire.responses import encode_error, encode_response


class CapturedRequests(SynchronousTestCase):
    def test_request_reencodes_to_the_same_bytes(self) -> None:
        """What a Go peer sent is what we would have sent."""
        seen = 0
        for case, message in messages("request"):
            raw = bytes.fromhex(message["hex"])
            if "1.7.3" in case and message["rpc"] == "InstallSnapshot":
                continue

            request = read_request(raw)

            self.assertEqual(encode_request(request).hex(), raw.hex(), case)
            seen += 1
        self.assertGreater(seen, 80)

    def test_request_decodes_a_byte_at_a_time(self) -> None:
        """A request may arrive in any pieces."""
        for case, message in messages("request"):
            raw = bytes.fromhex(message["hex"])
            self.assertEqual(read_request(raw, step=1), read_request(raw), case)

    def test_signed_size_of_newest_peers_is_read(self) -> None:
        """The newest library writes a signed size; only that differs from ours."""
        found = [
            bytes.fromhex(message["hex"])
            for case, message in messages("request")
            if "1.7.3" in case and message["rpc"] == "InstallSnapshot"
        ]

        request = read_request(found[0])

        assert isinstance(request, InstallSnapshotRequest)
        signed = b"\xa4Size" + b"\xd1" + request.size.to_bytes(2, "big")
        unsigned = b"\xa4Size" + b"\xcd" + request.size.to_bytes(2, "big")
        self.assertIn(signed, found[0])
        self.assertEqual(encode_request(request), found[0].replace(signed, unsigned))

    def test_fields_are_those_of_the_recording(self) -> None:
        """Spot check against the recorder's own decoding, for each field we read."""
        checked = 0
        for case, message in messages("request"):
            decoded = message["decoded"]
            request = read_request(bytes.fromhex(message["hex"]))
            if isinstance(request, AppendEntriesRequest):
                self.assertEqual(request.leader, decoded["Leader"], case)
                self.assertEqual(request.prev_log_index, decoded["PrevLogEntry"], case)
                self.assertEqual(request.prev_log_term, decoded["PrevLogTerm"], case)
                self.assertEqual(
                    request.leader_commit, decoded["LeaderCommitIndex"], case
                )
                self.assertEqual(
                    [(e.index, e.term, int(e.type)) for e in request.entries],
                    [
                        (e["Index"], e["Term"], e["Type"])
                        for e in decoded["Entries"] or []
                    ],
                    case,
                )
                checked += 1
            if isinstance(request, RequestVoteRequest):
                self.assertEqual(request.candidate, decoded["Candidate"], case)
                self.assertEqual(request.last_log_index, decoded["LastLogIndex"], case)
                self.assertEqual(
                    request.leadership_transfer,
                    decoded.get("LeadershipTransfer", False),
                    case,
                )
                checked += 1
        self.assertGreater(checked, 70)

    def test_heartbeat_is_recognised_by_its_shape(self) -> None:
        """Captured heartbeats are heartbeats, and commit updates are not."""
        shapes = set()
        for case, message in messages("request"):
            request = read_request(bytes.fromhex(message["hex"]))
            if isinstance(request, AppendEntriesRequest):
                is_nil = message["decoded"]["Entries"] is None
                self.assertEqual(request.is_heartbeat, is_nil, case)
                shapes.add(is_nil)
        self.assertEqual(shapes, {True, False})


class InstallSnapshots(SynchronousTestCase):
    def test_what_a_snapshot_has_skipped_is_a_key_of_ours(self) -> None:
        """It is read as it was written, and there only if there is any."""
        members = Configuration.of_voters(["a:1"])
        for skipped in (b"x", b""):
            request = InstallSnapshotRequest(3, "a:1", 9, 2, 0, members, 1, ("a:1",))
            request = replace(request, skipped=skipped)

            encoded = encode_request(request)

            self.assertEqual(read_request(encoded), request)
            self.assertEqual(b"Skipped" in encoded, bool(skipped))

    def test_membership_of_an_unknown_version_is_not_looked_at(self) -> None:
        """So that it can be refused with the text that Go peers use."""
        fields = {b"SnapshotVersion": 2, b"Configuration": b"?", b"Size": 3}

        request = decode_request(2, fields)

        assert isinstance(request, InstallSnapshotRequest)
        self.assertEqual((request.snapshot_version, request.size), (2, 3))
        self.assertEqual(request.configuration, Configuration())


class CapturedResponses(SynchronousTestCase):
    def test_response_reencodes_to_the_same_bytes(self) -> None:
        """What a Go peer answered is what we would have answered."""
        seen = 0
        for case, message in messages("response"):
            raw = bytes.fromhex(message["hex"])

            error, response = read_response(KINDS[message["rpc"]], raw)

            encoded = encode_response(response) if response else encode_error(error)
            self.assertEqual(encoded.hex(), raw.hex(), case)
            seen += 1
        self.assertGreater(seen, 80)

    def test_response_decodes_a_byte_at_a_time(self) -> None:
        """An answer may arrive in any pieces."""
        for case, message in messages("response"):
            raw, kind = bytes.fromhex(message["hex"]), KINDS[message["rpc"]]
            self.assertEqual(
                read_response(kind, raw, step=1), read_response(kind, raw), case
            )


class UnversionedVectors(SynchronousTestCase):
    def setUp(self) -> None:
        self.vectors = {
            name: bytes.fromhex(value)
            for name, value in load("go-0.1.0-vectors").items()
            if name != "note"
        }

    def test_frames_reencode(self) -> None:
        """The unversioned library's own frames pass through unchanged."""
        for name in ("append_entries_frame", "heartbeat_frame", "request_vote_frame"):
            raw = self.vectors[name]
            self.assertEqual(encode_request(read_request(raw)), raw, name)

    def test_append_entries_frame_is_built_from_fields(self) -> None:
        """The frame is what we write for the same fields, without a capture."""
        request = AppendEntriesRequest(
            term=10,
            leader="cartman",
            prev_log_index=100,
            prev_log_term=4,
            entries=[
                Entry(101, 4, LogType.NOOP),
                Entry(102, 4, LogType.COMMAND, b"hi"),
            ],
            leader_commit=90,
        )
        raw = self.vectors["append_entries_frame"]
        sent = read_request(raw)
        assert isinstance(sent, AppendEntriesRequest)

        encoded = encode_request(
            AppendEntriesRequest(
                request.term,
                request.leader,
                sent.prev_log_index,
                request.prev_log_term,
                [Entry(e.index, e.term, e.type, e.data) for e in sent.entries],
                request.leader_commit,
            )
        )

        self.assertEqual(encoded, raw)

    def test_answers_reencode(self) -> None:
        """The unversioned library's answers pass through unchanged."""
        for name, kind in (("append_entries_reply", 0), ("request_vote_reply", 1)):
            raw = self.vectors[name]
            error, response = read_response(kind, raw)
            assert response is not None
            self.assertEqual((error, encode_response(response)), ("", raw), name)

    def test_error_only_answer(self) -> None:
        """An error stands alone with nil, and a response beside it is kept."""
        raw = self.vectors["error_only_reply"]
        self.assertEqual(read_response(0, raw), ("unexpected command", None))
        self.assertEqual(encode_error("unexpected command"), raw)
        error, response = read_response(
            2, self.vectors["install_snapshot_reply_with_error"]
        )
        self.assertEqual(error, "short read")
        self.assertIsNotNone(response)

    def test_peer_list(self) -> None:
        """A peer list is a list of byte strings."""
        raw = self.vectors["peers_two"]
        self.assertEqual(decode_peers(raw), ("10.0.0.1:8300", "10.0.0.2:8300"))
        self.assertEqual(encode_peers(["10.0.0.1:8300", "10.0.0.2:8300"]), raw)

    def test_entries(self) -> None:
        """An entry without extensions keeps its four keys."""
        raw = self.vectors["log_300_70000_barrier_40zero"]
        entry = Entry(300, 70000, LogType.BARRIER, bytes(40))
        self.assertEqual(encode_entry(entry, version=0), raw)
        self.assertEqual(decode_entry(raw), entry)
        self.assertEqual(decode_entry(raw).encoded, raw)

    def test_snapshot_of_unversioned_peer_has_its_membership_in_peers(self) -> None:
        """Version 0 names voters by address; the entry that made it is unknown."""
        reader_bytes = bytes.fromhex(
            next(
                case["hex"]
                for case in load("msgpack-accept")
                if case["case"] == "install snapshot request 0.1.0 shape"
            )
        )
        request = read_request(b"\x02" + reader_bytes)
        assert isinstance(request, InstallSnapshotRequest)
        self.assertEqual(request.configuration, Configuration.of_voters(["h:1"]))
        self.assertEqual(request.configuration_index, request.last_log_index)


class CodecVectors(SynchronousTestCase):
    GO_OLD, GO_NEW = "go-msgpack 0.5.5", "go-msgpack 2.1.2 as raft 1.7.3 sets it"

    def test_scalars_are_written_as_go_writes_them(self) -> None:
        """The old raw family, and the shortest unsigned integer."""
        checked = 0
        for case in load("msgpack-encode"):
            kind, _, rest = case["value"].partition(" ")
            expected = case.get(self.GO_OLD, {})
            if kind == "uint64":
                self.assertEqual(pack(int(rest)).hex(), expected["hex"])
            elif kind in ("[]byte", "string") and rest.startswith("len "):
                packed = pack(b"a" * int(rest[4:]))
                self.assertEqual(len(packed), expected["total_bytes"], rest)
                start = expected["starts_with_hex"]
                self.assertEqual(packed.hex()[: len(start)], start)
            else:
                continue
            checked += 1
        self.assertGreater(checked, 20)

    def test_configuration_is_written_as_go_writes_it(self) -> None:
        """A configuration's servers are nil when there are none."""
        vectors = {case["value"]: case for case in load("msgpack-encode")}
        servers = tuple(
            Server(str(number), f"h:{number}", suffrage)
            for number, suffrage in enumerate(Suffrage, start=1)
        )
        for name, configuration in (
            ("empty Configuration", Configuration()),
            ("Configuration voter,nonvoter,staging", Configuration(servers)),
        ):
            raw = bytes.fromhex(vectors[name][self.GO_NEW]["hex"])
            if configuration.servers:
                decoded = decode_configuration(raw)
                self.assertEqual([s.suffrage for s in decoded.servers], list(Suffrage))
                self.assertEqual(encode_configuration(decoded), raw)
            else:
                self.assertEqual(encode_configuration(configuration), raw)
                self.assertEqual(decode_configuration(raw), configuration)

    def test_zero_messages_reencode(self) -> None:
        """Messages of zero values, with every header key, keep their bytes."""
        vectors = {case["value"]: case for case in load("msgpack-encode")}
        for name, kind in (("RequestVote", 1), ("TimeoutNow", 3)):
            raw = bytes([kind]) + bytes.fromhex(
                vectors[f"{name}Request zero"][self.GO_NEW]["hex"]
            )
            self.assertEqual(encode_request(read_request(raw)), raw, name)
        for name, kind in KINDS.items():
            if f"{name}Response zero" not in vectors:
                continue
            raw = b"\xa0" + bytes.fromhex(
                vectors[f"{name}Response zero"][self.GO_NEW]["hex"]
            )
            _, response = read_response(kind, raw)
            assert response is not None
            self.assertEqual(encode_response(response), raw, name)


# Go reads these, no Go peer writes them, and neither do we read them.
REFUSED_HERE = {
    "Leader ([]byte) as array of ints": "a list in place of a byte string",
    "request as array in declaration order (1.1.2)": "an array for a map",
    "Entries with nil element": "an entry that is nothing must not be appended",
    "Entry Type 255": "unknown types kill peers when they are committed",
    "Entries one, Extensions missing (0.1.0 shape)": "index 7 after entry 0",
    "install snapshot Size as uint64 >= 2^63": "no snapshot is that large",
    "Data 100 bytes as str8": "an entry without index, term and type",
    "Data 100 bytes as bin8": "an entry without index, term and type",
}
# Go refuses these in one version, and we read what the later one reads.
ACCEPTED_HERE = {"Success (bool) as uint8 1": "our parser cannot tell it from 1"}


class AcceptedEncodings(SynchronousTestCase):
    def test_requests_and_answers_are_read_as_go_reads_them(self) -> None:
        """What the newest Go peer reads we read, and what it refuses we refuse."""
        decoders = {
            "AppendEntriesRequest": lambda raw: read_request(b"\x00" + raw),
            "RequestVoteRequest": lambda raw: read_request(b"\x01" + raw),
            "InstallSnapshotRequest": lambda raw: read_request(b"\x02" + raw),
            "AppendEntriesResponse": lambda raw: read_response(0, b"\xa0" + raw),
            "RequestVoteResponse": lambda raw: read_response(1, b"\xa0" + raw),
            "string": lambda raw: read_response(0, raw + b"\x80"),
            "list of []byte": decode_peers,
            "Configuration": decode_configuration,
        }
        for case in load("msgpack-accept"):
            name = case["case"]
            accepted = case["go-msgpack 2.1.2"]["ok"] and name not in REFUSED_HERE
            decode = decoders[case["decoded_as"]]
            raw = bytes.fromhex(case["hex"])
            if accepted or name in ACCEPTED_HERE:
                try:
                    decode(raw)
                except ProtocolError as error:
                    if "stands where" not in str(error):
                        self.fail(f"{name}: {error}")
            else:
                self.assertRaises(ProtocolError, decode, raw)

    def test_missing_and_nil_fields_are_zero(self) -> None:
        """Nil instead of a message, an empty map and nil fields are zero values."""
        zero = AppendEntriesRequest(0, "")
        for body in (b"\xc0", b"\x80", b"\x81\xa4Term\xc0", b"\x81\xa6Leader\xa0"):
            self.assertEqual(read_request(b"\x00" + body), zero)

    def test_header_key_that_is_absent_stays_none(self) -> None:
        """Absent and zero are two things for a header, as the version check shows."""
        self.assertEqual(read_request(b"\x03\x80"), decode_request(3, {}))
        request = read_request(b"\x03\x81\xafProtocolVersion\x00")
        self.assertEqual(request.header, Header(protocol_version=0))

    def test_last_of_repeated_keys_counts(self) -> None:
        """A key may stand twice."""
        request = read_request(b"\x00\x82\xa4Term\x01\xa4Term\x02")
        self.assertEqual(request, AppendEntriesRequest(2, ""))


class AnswerKeys(SynchronousTestCase):
    def test_every_key_is_always_written(self) -> None:
        """A key left out of an answer would keep an older value in a Go leader."""
        encoded = encode_response(AppendEntriesResponse(0, 0, False))
        for key in (b"LastLog", b"NoRetryBackoff", b"Success", b"Term"):
            self.assertIn(key, encoded)

    def test_peers_of_a_vote_are_nil_or_a_list_but_never_empty(self) -> None:
        """An unversioned candidate dies of an answer whose peers are zero bytes."""
        none = encode_response(RequestVoteResponse(1, True, None, Header(2)))
        empty = encode_response(RequestVoteResponse(1, True, ()))

        self.assertIn(b"\xa5Peers\xc0", none)
        self.assertIn(b"\xa5Peers\xa1\x90", empty)

    def test_header_of_two_answers_is_left_zero(self) -> None:
        """The answers to InstallSnapshot and TimeoutNow name nobody."""
        header = Header(3, "id", "a:1")
        snapshot = encode_response(InstallSnapshotResponse(2, True, header))
        timeout_now = encode_response(TimeoutNowResponse(header))
        for encoded in (snapshot, timeout_now):
            self.assertIn(b"\xa4Addr\xc0\xa2ID\xc0\xafProtocolVersion\x00", encoded)
