"""Segment files, byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import DataCorrupted, WrongDirectory
from txraft.storage.segment import (
    FrameKind,
    Seal,
    SegmentHeader,
    decode_header,
    entry_at,
    header_directory,
    pack_entries,
    segment_name,
    sequence_in,
    unpack_lengths,
)
from txraft.testing.contracts.samples import command

PATH = Path("/log/0000000000000003.seg")
SALT = b"0123456789abcdef"
HERE = bytes(range(100, 116))


def crc64(data: bytes) -> int:
    """Compute CRC-64/XZ bit by bit, as its definition says."""
    register = 2**64 - 1
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xC96C5795D7870F42 if register & 1 else 0)
    return register ^ 2**64 - 1


def whole(version: int, fields: bytes) -> bytes:
    """Make a header of *fields* that is whole."""
    data = b"txraft-L" + struct.pack(">I", version)
    data += struct.pack(">I", zlib.crc32(data)) + fields
    return data + struct.pack(">Q", crc64(data))


class Headers(SynchronousTestCase):
    """The beginning of a segment."""

    def test_encode(self) -> None:
        """Each field is where the documentation says, and so is the checksum."""
        header = SegmentHeader(SALT, 3, 77, 10, 20, HERE)

        data = header.encode("node")

        fields = struct.pack(">16sQQQQ16sH", SALT, 3, 77, 10, 20, HERE, 4)
        self.assertEqual(data, whole(2, fields + b"node"))
        self.assertEqual(decode_header(data, "node", PATH), (header, len(data)))

    def test_decode_of_another_data_directory(self) -> None:
        """A segment that says where it was made is no other directory's."""
        data = SegmentHeader(SALT, 3, 77, 10, 20, HERE).encode("node")

        error = self.assertRaises(
            WrongDirectory, decode_header, data, "node", PATH, HERE[::-1]
        )

        self.assertIn(f"{PATH}: the file belongs to another data dir", str(error))
        self.assertIn("or remove this server from the cluster", str(error))
        self.assertEqual(decode_header(data, "node", PATH, HERE)[1], len(data))

    def test_decode_without_a_data_directory(self) -> None:
        """One that does not say it, as those of format 1, is taken anywhere."""
        header = SegmentHeader(SALT, 3, 77, 10, 20)
        old = whole(1, struct.pack(">16sQQQQH", SALT, 3, 77, 10, 20, 4) + b"node")

        for data in (old, header.encode("node")):
            found = decode_header(data, "node", PATH, HERE)
            self.assertEqual(found, (header, len(data)))
            self.assertEqual(header_directory(data, PATH), b"")

    def test_decode_of_a_format_that_never_was(self) -> None:
        """Format 0 is damage, whatever its checksum says."""
        data = whole(0, struct.pack(">16sQQQQH", SALT, 3, 77, 10, 20, 4) + b"node")

        self.assertRaises(DataCorrupted, decode_header, data, "node", PATH)

    def test_decode_of_any_prefix(self) -> None:
        """A header that ends early is damage."""
        data = SegmentHeader(SALT, 3, 77, 10, 20).encode("node")

        for size in range(len(data)):
            self.assertRaises(DataCorrupted, decode_header, data[:size], "node", PATH)

    def test_node_name_that_is_no_text(self) -> None:
        """Names survive whatever bytes an address holds."""
        data = SegmentHeader(SALT, 1, 0, 0, 0).encode("n\udcff")

        header, _ = decode_header(data, "n\udcff", PATH)

        self.assertEqual(header.sequence, 1)


class Frames(SynchronousTestCase):
    """What one write puts into a segment."""

    def test_make(self) -> None:
        """Checksums cover the salt, the place, the header and the payload."""
        frame, checksum = Seal(SALT).make(100, FrameKind.ENTRIES, 2, 9, b"payload", 5)

        fields = struct.pack(">4sBxxxIIQQ", b"TXRf", 1, 2, 7, 9, 5)
        covered = SALT + struct.pack(">Q", 100) + fields
        checks = struct.pack(">QQ", crc64(covered), crc64(covered + b"payload"))
        self.assertEqual(frame, fields + checks + b"payload")
        self.assertEqual(checksum, crc64(covered + b"payload"))

    def test_parse(self) -> None:
        """A frame is read back, wherever it stands in the data."""
        seal = Seal(SALT)
        frame, checksum = seal.make(100, FrameKind.ENTRIES, 2, 9, b"payload", 5)

        found = seal.parse(memoryview(b"..." + frame + b"..."), 3, 100)

        assert found is not None
        self.assertEqual(found[:5], (1, 2, 9, 5, checksum))
        self.assertEqual((found.start, found.payload), (148, b"payload"))

    def test_parse_of_another_place(self) -> None:
        """A copy at another offset, or in another segment, is no frame."""
        frame, _ = Seal(SALT).make(100, FrameKind.TRUNCATE, 0, 9, b"", 5)
        view = memoryview(frame)

        self.assertIsNotNone(Seal(SALT).parse(view, 0, 100))
        self.assertIsNone(Seal(SALT).parse(view, 0, 101))
        self.assertIsNone(Seal(SALT[::-1]).parse(view, 0, 100))
        self.assertIsNone(Seal(SALT).payload_length(view, 0, 101))
        self.assertIsNone(Seal(SALT[::-1]).payload_length(view, 0, 100))

    def test_parse_of_a_cut_frame(self) -> None:
        """A frame is whole or it is none."""
        seal = Seal(SALT)
        frame, _ = seal.make(100, FrameKind.ENTRIES, 2, 9, b"payload", 5)

        for size in range(len(frame)):
            self.assertIsNone(seal.parse(memoryview(frame[:size]), 0, 100))

    def test_find(self) -> None:
        """A whole frame is found behind anything, a broken or copied one is not."""
        seal = Seal(SALT)
        here, _ = seal.make(1000, FrameKind.TRUNCATE, 0, 9, b"", 5)
        other, _ = seal.make(2000, FrameKind.TRUNCATE, 0, 9, b"", 5)
        before = (other + b"TXRf" * 9).ljust(200, b"T")

        self.assertEqual(seal.find(before + here, 800), 1000)
        self.assertIsNone(seal.find(before + here, 801))
        self.assertIsNone(seal.find(before + here[:-1] + b"?", 800))


class Payloads(SynchronousTestCase):
    """Entries in a frame."""

    def test_pack_and_unpack(self) -> None:
        """Each entry stands behind its length."""
        entries = [command(1), command(2, data=b"longer than the other")]

        payload, places, lengths = pack_entries(entries)

        self.assertEqual(
            payload,
            b"".join(struct.pack(">I", len(e.encoded)) + e.encoded for e in entries),
        )
        self.assertEqual(unpack_lengths(memoryview(payload), 2), (places, lengths))
        for entry, place, length in zip(entries, places, lengths, strict=True):
            self.assertEqual(entry_at(payload, place, length), entry.encoded)
            self.assertIsNone(entry_at(payload, place, length + 1))
        self.assertIsNone(entry_at(payload[:-1], places[1], lengths[1]))

    def test_unpack_refuses_what_does_not_add_up(self) -> None:
        """Counts and lengths must use the payload exactly."""
        payload, _, _ = pack_entries([command(1), command(2)])

        for data, count in ((payload, 1), (payload, 3), (payload[:-1], 2)):
            self.assertRaises(ValueError, unpack_lengths, memoryview(data), count)


class Names(SynchronousTestCase):
    """Names of segments."""

    def test_sequence_in(self) -> None:
        """Only names that we give are taken for ours."""
        self.assertEqual(segment_name(12), "0000000000000012.seg")
        self.assertEqual(sequence_in("0000000000000012.seg"), 12)
        for name in ("12.seg", "0000000000000012.seg.tmp", "0000000000000012.seg\n"):
            self.assertIsNone(sequence_in(name))
