"""Backups over HTTP: an archive that other tools read, and its way back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.http.network import HTTPCase
from tests.http.test_site import LIMITS, SiteCase
from tests.kv.commands import Machine
from tests.kv.test_state import snapshot_of
from txraft.core.configuration import Configuration
from txraft.errors import DataCorrupted, LeadershipLost
from txraft.http import backups
from txraft.http.archive import describe, pack, unpack
from txraft.kv.commands import encode_put


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


class Archive(SynchronousTestCase):
    """A gzipped tar of three files, as Consul makes it."""

    def test_pack(self) -> None:
        meta = describe(7, 2, Configuration.of_voters(["a:1"]), 5)

        with tarfile.open(fileobj=io.BytesIO(pack(meta, b"state"))) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]

        self.assertEqual(list(files), ["meta.json", "state.bin", "SHA256SUMS"])
        told = json.loads(files["meta.json"])
        self.assertEqual((told["Index"], told["Term"], told["Size"]), (7, 2, 5))
        self.assertEqual(
            told["Configuration"],
            {"Servers": [{"Suffrage": 0, "ID": "a:1", "Address": "a:1"}]},
        )
        self.assertIn(
            f"{hashlib.sha256(b'state').hexdigest()}  state.bin\n".encode(),
            files["SHA256SUMS"],
        )
        self.assertEqual(unpack(pack(meta, b"state"), 5), b"state")

    def test_unpack_refuses_what_is_not_whole(self) -> None:
        meta, state = b"{}", b"state"
        good = sums(meta_json=meta, state_bin=state)
        whole = archive_of(meta_json=meta, state_bin=state, SHA256SUMS=good)
        self.assertEqual(unpack(whole, 5), state)
        for archive in (
            b"",
            b"no gzip",
            gzip.compress(b"no tar" * 200),
            whole[:-20],
            archive_of(meta_json=meta, state_bin=state),
            archive_of(meta_json=meta, SHA256SUMS=good),
            archive_of(meta_json=meta, state_bin=b"other", SHA256SUMS=good),
            archive_of(meta_json=b"[]", state_bin=state, SHA256SUMS=good),
            archive_of(meta_json=meta, state_bin=state, SHA256SUMS=b""),
        ):
            self.assertRaises(DataCorrupted, unpack, archive, 1000)

    def test_unpack_bounds_what_it_inflates(self) -> None:
        """A small archive may hold a large file of zeros."""
        bomb = archive_of(state_bin=bytes(8 << 20))
        self.assertLess(len(bomb), 20_000)

        error = self.assertRaises(DataCorrupted, unpack, bomb, 1000)
        self.assertIn("holds more than", str(error))


class Backups(HTTPCase):
    """`GET` and `PUT` on `/v1/snapshot`."""

    def archive(self, *keys: str) -> bytes:
        machine = Machine(*(encode_put(key, b"v") for key in keys))
        return pack({}, snapshot_of(machine.fsm))

    def test_save_and_restore(self) -> None:
        """In several pieces, through a follower."""
        self.patch(backups, "PIECE_BYTES", 10)
        self.reply(self.n1, "PUT", "/v1/kv/k", b"v")
        saved = self.reply(self.n2, "GET", "/v1/snapshot")
        self.assertEqual(saved.header("Content-Type"), "application/x-gzip")
        self.reply(self.n1, "DELETE", "/v1/kv/k")
        self.reply(self.n1, "PUT", "/v1/kv/later", b"v")

        restored = self.reply(self.n2, "PUT", "/v1/snapshot", saved.body)

        self.assertEqual((restored.status, restored.body), (200, b""))
        self.assertEqual(list(self.n1.fsm), ["k"])

    def test_restore_wakes_who_waits(self) -> None:
        waiting = self.ask(self.n1, "GET", "/v1/kv/k?index=1")

        self.reply(self.n1, "PUT", "/v1/snapshot", self.archive("k"))
        self.advance(0)

        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_restore_refuses_anything_else(self) -> None:
        self.reply(self.n1, "PUT", "/v1/kv/kept", b"v")
        committed = len(self.n1.applied)
        for body in (b"", b"x", pack({}, b"of another program")):
            reply = self.reply(self.n1, "PUT", "/v1/snapshot", body)
            self.assertEqual(reply.status, 400)
            self.assertIn(b"cannot be restored", reply.body)

        self.assertEqual(len(self.n1.applied), committed)

    def test_restore_that_is_interrupted_changes_nothing(self) -> None:
        self.patch(backups, "PIECE_BYTES", 10)
        self.reply(self.n1, "PUT", "/v1/kv/kept", b"v")
        first: Deferred[object] = Deferred()
        self.n1.script = [first, LeadershipLost()]
        asked = self.ask(self.n1, "PUT", "/v1/snapshot", self.archive("k"))

        first.callback(None)
        self.network.flush()

        self.assertEqual(self.successResultOf(asked).status, 504)
        self.assertEqual(list(self.n1.fsm), ["kept"])


class Bodies(SiteCase):
    """Only a backup may be longer than other bodies."""

    def test_limit_by_path(self) -> None:
        most = LIMITS.max_backup_bytes
        for path, length, refused in (
            (b"/v1/snapshot", 101, False),
            (b"/v1/snapshot?dc=dc1", most, False),
            (b"/v1/snapshot", most + 1, True),
            (b"/v1/kv/v1/snapshot", 101, True),
        ):
            channel, transport = self.connect()
            channel.dataReceived(
                b"PUT %s HTTP/1.1\r\nHost: n1\r\nContent-Length: %d\r\n\r\n"
                % (path, length)
            )
            self.assertEqual((path, b" 413 " in transport.value()), (path, refused))
            transport.loseConnection()
