"""Backups over HTTP: an archive that other tools read, and its way back."""

from __future__ import annotations

import io
import tarfile

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.http.test_site import LIMITS, SiteCase
from tests.kv.test_backup import packed
from tests.support.http_network import HTTPCase, Reply, backup_of
from tests.support.kv_commands import Machine
from txraft.errors import LeadershipLost
from txraft.http import backups, spool
from txraft.http.answers import HTTPRefusal
from txraft.http.limits import HTTPLimits
from txraft.http.roles import Role
from txraft.kv import backup
from txraft.kv.commands import encode_put


def in_small_pieces(case: SynchronousTestCase) -> None:
    """Let even a small state have many pieces."""
    case.patch(backups, "PIECE_BYTES", 10)
    case.patch(backup.ArchiveReader.pieces, "__defaults__", (10,))


class Backups(HTTPCase):
    """`GET` and `PUT` on `/v1/snapshot`."""

    limits = HTTPLimits(max_backups=2)

    def archive(self, *keys: str) -> bytes:
        return backup_of(Machine(*(encode_put(key, b"v") for key in keys)).fsm)

    def restore(self, body: bytes) -> Reply:
        return self.work(self.ask(self.n1, "PUT", "/v1/snapshot", body))

    def test_save_and_restore(self) -> None:
        """In several pieces, through a follower."""
        in_small_pieces(self)
        self.reply(self.n1, "PUT", "/v1/kv/k", b"v")
        saved = self.work(self.ask(self.n2, "GET", "/v1/snapshot"))
        self.assertEqual(saved.header("Content-Type"), "application/x-gzip")
        self.reply(self.n1, "DELETE", "/v1/kv/k")
        self.reply(self.n1, "PUT", "/v1/kv/later", b"v")

        restored = self.work(self.ask(self.n2, "PUT", "/v1/snapshot", saved.body))

        self.assertEqual((restored.status, restored.body), (200, b""))
        self.assertEqual(list(self.n1.fsm), ["k"])

    def test_save_is_of_one_moment(self) -> None:
        """What is written while a backup is made is not in it."""
        in_small_pieces(self)
        self.reply(self.n1, "PUT", "/v1/kv/k", b"v")
        saving = self.ask(self.n1, "GET", "/v1/snapshot")
        self.worker.perform()

        self.reply(self.n1, "DELETE", "/v1/kv/k")
        saved = self.work(saving)

        self.restore(saved.body)
        self.assertEqual(list(self.n1.fsm), ["k"])

    def test_save_in_pieces(self) -> None:
        """The worker is free in between, and what was made has left already."""
        in_small_pieces(self)
        self.n1.commit(encode_put("k", bytes(range(256)) * 100))
        self.ask(self.n1, "GET", "/v1/snapshot")

        jobs = 0
        while self.worker.perform():
            jobs += 1

        self.assertGreater(jobs, 1000)

    def test_save_takes_too_long(self) -> None:
        """A client that does not read is cut off, and its place is free again."""
        for _ in range(2):
            asked = [self.ask(self.n1, "GET", "/v1/snapshot") for _ in range(2)]
            busy = self.reply(self.n1, "GET", "/v1/snapshot")
            self.assertEqual((busy.status, busy.outcome), (503, "not-applied"))

            self.advance(self.limits.backup_timeout)
            while self.worker.perform():
                self.network.flush()

            for each in asked:
                self.failureResultOf(each)

    def test_restore_wakes_who_waits(self) -> None:
        waiting = self.ask(self.n1, "GET", "/v1/kv/k?index=1")

        self.restore(self.archive("k"))
        self.advance(0)

        self.assertEqual(self.successResultOf(waiting).status, 200)

    def test_restore_refuses_anything_else(self) -> None:
        self.reply(self.n1, "PUT", "/v1/kv/kept", b"v")
        committed = len(self.n1.applied)
        for body in (b"", b"x", packed(b"of another program")):
            reply = self.restore(body)
            self.assertEqual(reply.status, 400)
            self.assertIn(b"cannot be restored", reply.body)

        self.assertEqual(len(self.n1.applied), committed)

    def test_restore_that_is_interrupted_changes_nothing(self) -> None:
        in_small_pieces(self)
        self.reply(self.n1, "PUT", "/v1/kv/kept", b"v")
        first: Deferred[object] = Deferred()
        self.n1.script = [first, LeadershipLost()]
        asked = self.ask(self.n1, "PUT", "/v1/snapshot", self.archive("k"))
        while self.worker.perform():
            self.network.flush()

        first.callback(None)

        self.assertEqual(self.work(asked).status, 500)
        self.assertEqual(list(self.n1.fsm), ["kept"])

    def test_restore_that_was_given_up_goes_no_further(self) -> None:
        """Its client was told that nothing was changed, so nothing may be."""
        in_small_pieces(self)
        first: Deferred[object] = Deferred()
        self.n1.script = [first]
        asked = self.ask(self.n1, "PUT", "/v1/snapshot", self.archive("k"))
        while self.worker.perform():
            self.network.flush()
        self.advance(self.limits.backup_timeout)
        reply = self.successResultOf(asked)
        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))

        first.callback(None)
        while self.worker.perform():
            pass

        self.assertEqual(list(self.n1.fsm), [])

    def test_any_tar_reads_it(self) -> None:
        saved = self.work(self.ask(self.n1, "GET", "/v1/snapshot?stale"))

        with tarfile.open(fileobj=io.BytesIO(saved.body)) as tar:
            names = tar.getnames()
        self.assertEqual(names, ["meta.json", "state.bin", "SHA256SUMS"])


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

    def head(self, length: int) -> bytes:
        return (
            b"PUT /v1/snapshot HTTP/1.1\r\nHost: n1\r\nContent-Length: %d\r\n\r\n"
            % length
        )

    def test_body_goes_to_a_file(self) -> None:
        """It comes in pieces, and whoever sends faster than they are written waits."""
        self.patch(spool, "MAX_QUEUED_BYTES", 10)
        body = backup_of(Machine(encode_put("k", b"v")).fsm)
        channel, transport = self.connect()
        channel.dataReceived(self.head(len(body)))

        for start in range(0, len(body), 8):
            self.assertEqual(transport.producerState, "producing")
            channel.dataReceived(body[start : start + 8])
            if start % 16:
                self.assertEqual(transport.producerState, "paused")
                self.worker.perform()
                self.worker.perform()
        while self.worker.perform():
            pass

        self.assertIn(b" 200 OK\r\n", transport.value())
        self.assertEqual(list(self.node.fsm), ["k"])

    def test_disk_is_full(self) -> None:
        """A body that cannot be kept whole is not restored."""
        body = backup_of(Machine(encode_put("k", b"v")).fsm)
        channel, transport = self.connect()
        channel.dataReceived(self.head(len(body)))
        request = channel.requests[0]
        request.content._file.close()
        request.content._file = Full()

        channel.dataReceived(body)
        while self.worker.perform():
            pass

        self.assertIn(b" 500 ", transport.value())
        self.assertIn(b"No space left", transport.value())
        self.assertEqual(list(self.node.fsm), [])

    def test_too_many_bodies(self) -> None:
        """They take up room on a disk before anything is known of them."""
        self.site.most = 10
        channels = []
        for _ in range(LIMITS.max_backups):
            channel, transport = self.connect()
            channel.dataReceived(self.head(1000))
            self.assertEqual(transport.value(), b"")
            channels.append((channel, transport))

        channel, transport = self.connect()
        channel.dataReceived(self.head(1000))
        self.assertIn(b" 503 ", transport.value())
        transport.loseConnection()

        channels[0][1].loseConnection()
        channel, transport = self.connect()
        channel.dataReceived(self.head(1000))
        self.assertEqual(transport.value(), b"")
        transport.loseConnection()
        for _, other in channels[1:]:
            other.loseConnection()

    def test_only_an_operator_sends_one(self) -> None:
        """A stranger is refused at the head, and no file is made for him."""
        self.site.api._access = Strangers()
        channel, transport = self.connect()

        channel.dataReceived(self.head(1000))

        self.assertIn(b" 403 ", transport.value())
        self.assertEqual(len(self.site._spools), 0)
        transport.loseConnection()


class Full:
    """A file on a disk that is full."""

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def close(self) -> None: ...


class Strangers:
    """Knows nobody."""

    def role_of(self, request: object) -> Role:
        raise HTTPRefusal(403, "Permission denied")
