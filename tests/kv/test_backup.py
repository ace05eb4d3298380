"""The archive of a backup: one that other tools read, and that is read strictly."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.errors import DataCorrupted
from txraft.kv.backup import ArchiveReader, describe, pack


def packed(state: bytes, size: int = 3) -> bytes:
    """Make an archive of *state*, which is given in pieces of *size* bytes."""

    def pieces() -> Iterator[bytes]:
        return (state[i : i + size] for i in range(0, len(state), size))

    return b"".join(
        pack(
            lambda total: describe(7, 2, Configuration.of_voters(["a:1"]), total),
            pieces,
        )
    )


def archive_of(**files: bytes) -> bytes:
    """Make an archive of any files, in gzip."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(raw.getvalue())


def sums(**files: bytes) -> bytes:
    lines = (
        f"{hashlib.sha256(data).hexdigest()}  {name.replace('_', '.')}\n"
        for name, data in files.items()
    )
    return "".join(lines).encode()


def read(archive: bytes, most: int = 1000) -> bytes:
    return b"".join(ArchiveReader(io.BytesIO(archive), most).pieces(4))


class Writing(SynchronousTestCase):
    """A gzipped tar of three files, as Consul makes it."""

    def test_pack(self) -> None:
        """Any tar reads it, whatever the size of the state, and so do we."""
        for state in (b"", b"state", bytes(512), os.urandom(5000)):
            archive = packed(state)

            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]

            self.assertEqual(list(files), ["meta.json", "state.bin", "SHA256SUMS"])
            self.assertEqual(files["state.bin"], state)
            told = json.loads(files["meta.json"])
            self.assertEqual(
                (told["Index"], told["Term"], told["Size"]), (7, 2, len(state))
            )
            self.assertEqual(
                told["Configuration"],
                {"Servers": [{"Suffrage": 0, "ID": "a:1", "Address": "a:1"}]},
            )
            self.assertEqual(
                files["SHA256SUMS"],
                sums(meta_json=files["meta.json"], state_bin=state),
            )
            self.assertEqual(read(archive, 5000), state)


class Reading(SynchronousTestCase):
    """What is not whole, or not a backup, is refused."""

    META, STATE = b"{}", b"state"

    def test_refuses_what_is_not_whole(self) -> None:
        meta, state = self.META, self.STATE
        good = sums(meta_json=meta, state_bin=state)
        whole = archive_of(meta_json=meta, state_bin=state, SHA256SUMS=good)
        self.assertEqual(read(whole), state)
        for name, archive in {
            "nothing": b"",
            "no gzip": b"no gzip",
            "no tar": gzip.compress(b"no tar" * 200),
            "cut": whole[:-1],
            "more behind": whole + b"x",
            "no sums": archive_of(meta_json=meta, state_bin=state),
            "no state": archive_of(meta_json=meta, SHA256SUMS=good),
            "other state": archive_of(
                meta_json=meta, state_bin=b"other", SHA256SUMS=good
            ),
            "other meta": archive_of(meta_json=b"[]", state_bin=state, SHA256SUMS=good),
            "empty sums": archive_of(meta_json=meta, state_bin=state, SHA256SUMS=b""),
            "malformed sums": archive_of(
                meta_json=meta, state_bin=state, SHA256SUMS=b"x"
            ),
            "state behind the sums": archive_of(
                meta_json=meta, SHA256SUMS=good, state_bin=state
            ),
            "another file": archive_of(
                meta_json=meta, state_bin=state, SHA256SUMS=good, more=b""
            ),
        }.items():
            with self.assertRaises(DataCorrupted, msg=name):
                read(archive)

    def test_refuses_a_file_that_is_there_twice(self) -> None:
        """The second state would not be the one that was checked."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            good = sums(meta_json=self.META, state_bin=self.STATE)
            for name, data in (
                ("meta.json", self.META),
                ("state.bin", self.STATE),
                ("SHA256SUMS", good),
                ("state.bin", b"other"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

        self.assertRaises(DataCorrupted, read, gzip.compress(raw.getvalue()))

    def test_every_changed_byte_is_noticed(self) -> None:
        """None of them passes for another state."""
        whole = packed(b"a state of some length")
        for position in range(len(whole)):
            changed = bytearray(whole)
            changed[position] ^= 0x10
            try:
                self.assertEqual(read(bytes(changed)), b"a state of some length")
            except DataCorrupted:
                continue

    def test_bounds_what_it_inflates(self) -> None:
        """A small archive may hold a large file of zeros, of any name."""
        for bomb in (
            archive_of(state_bin=bytes(8 << 20)),
            archive_of(meta_json=bytes(8 << 20)),
            archive_of(other=bytes(8 << 20)),
            gzip.compress(bytes(8 << 20)),
            pax_bomb(8 << 20),
        ):
            self.assertLess(len(bomb), 20_000)
            self.assertRaises(DataCorrupted, read, bomb)


def pax_bomb(size: int) -> bytes:
    """Make an archive whose extended header alone has *size* bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("meta.json")
        member.pax_headers = {"comment": "x" * size}
        tar.addfile(member, io.BytesIO())
    return gzip.compress(raw.getvalue())
