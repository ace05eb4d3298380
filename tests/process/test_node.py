"""`twistd raft` as a process: its start, its service, its refusals and its end."""

from __future__ import annotations

import contextlib  # whole: trial reads a `suppress` of a module as its own
import os
import select
import signal
import socket
from pathlib import Path
from shutil import rmtree

from twisted.internet.defer import Deferred

from tests.support.twistd import STOP_TIMEOUT, TwistdTestCase, free_port

MANY_SNAPSHOTS = "snapshot_threshold: 1, snapshot_interval: 100ms"


def exchange(one: Path, other: Path) -> None:
    """Let two files or directories have each other's place."""
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


class Foreground(TwistdTestCase):
    """`twistd -n raft`."""

    async def test_serve_stop_and_start_again(self) -> None:
        """A node serves, ends in order on SIGTERM, and holds its keys afterwards.

        The status is twistd's own: the signal, sent again once all is closed.
        """
        config, http = self.settings()
        node = await self.node(config)

        put = await self.request(http, "PUT", "/v1/kv/a", b"1")
        status = await node.terminate()

        self.assertEqual(put, (200, b"true"))
        self.assertEqual(status, -signal.SIGTERM)
        self.assertNotIn("Traceback", node.output)
        await self.node(config)
        got = await self.request(http, "GET", "/v1/kv/a?raw")
        self.assertEqual(got, (200, b"1"))

    async def test_serve_after_kill(self) -> None:
        """What was acknowledged is there after SIGKILL."""
        config, http = self.settings()
        node = await self.node(config)
        put = await self.request(http, "PUT", "/v1/kv/a", b"1")

        node.transport.signalProcess("KILL")
        await node.status()

        self.assertEqual(put, (200, b"true"))
        await self.node(config)
        got = await self.request(http, "GET", "/v1/kv/a?raw")
        self.assertEqual(got, (200, b"1"))

    async def test_serve_from_lmdb(self) -> None:
        """The other kind of store holds its keys through SIGKILL as well."""
        config, http = self.settings()
        config.write_text(config.read_text() + "store: lmdb\n")
        node = await self.node(config)
        put = await self.request(http, "PUT", "/v1/kv/a", b"1")

        node.transport.signalProcess("KILL")
        await node.status()

        self.assertEqual(put, (200, b"true"))
        await self.node(config)
        got = await self.request(http, "GET", "/v1/kv/a?raw")
        self.assertEqual(got, (200, b"1"))
        self.assertTrue((self.directory / "n1" / "lmdb" / "data.mdb").exists())

    async def test_data_dir_is_private(self) -> None:
        """Only its owner can look into a data directory."""
        config, _ = self.settings()

        await self.node(config)

        self.assertEqual((self.directory / "n1").stat().st_mode & 0o777, 0o700)

    async def test_failed_disk(self) -> None:
        """A node whose disk takes no more stops itself, with a status other than 0."""
        config, http = self.settings()
        node = await self.node(config, shell_prefix="ulimit -f 128")

        answer = await self.request(http, "PUT", "/v1/kv/a", bytes(200_000))

        self.assertEqual(answer[0], 500)
        self.assertEqual(await node.status(), 1)
        self.assertIn("The node stopped itself", node.output)
        self.assertIn("File too large", node.output)


class Refusals(TwistdTestCase):
    """What prevents a start is one message, and status 1 at once."""

    async def refused(self, *arguments: str) -> str:
        """Start a node that must not start; return the lines that say why."""
        node = self.spawn("-n", "--pidfile=", "raft", *arguments)

        self.assertEqual(await node.status(), 1)
        self.assertNotIn("Traceback", node.output)
        lines = node.output.splitlines()
        critical = [line for line in lines if "#critical]" in line]
        self.assertEqual(len(critical), 1, node.output)
        return critical[0]

    async def test_port_in_use(self) -> None:
        """The message names the address, be it of peers or of HTTP."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", free_port()))
            taken.listen()
            port = taken.getsockname()[1]
            for config, _ in (
                self.settings("n1", listen=str(port)),
                self.settings("n2", http=str(port)),
            ):
                message = await self.refused("--config", str(config))

                self.assertIn(f"127.0.0.1:{port}", message)
                self.assertIn("Address already in use", message)

    async def test_data_dir_in_use(self) -> None:
        """The message names the directory and the process that has it."""
        config, _ = self.settings("n1", data_dir="shared")
        node = await self.node(config)

        other, _ = self.settings("n2", data_dir="shared")
        message = await self.refused("--config", str(other))

        self.assertIn(str(self.directory / "shared"), message)
        self.assertIn(f"process {node.transport.pid}", message)

    async def test_damaged_log(self) -> None:
        """The message names the file; the file is as it was."""
        config, http = self.settings()
        node = await self.node(config)
        for value in (b"1", b"2", b"3"):
            await self.request(http, "PUT", "/v1/kv/a", value)
        await node.terminate()
        (segment,) = (self.directory / "n1" / "log").iterdir()
        damaged = bytearray(segment.read_bytes())
        damaged[len(damaged) // 3] ^= 1
        segment.write_bytes(damaged)

        message = await self.refused("--config", str(config))

        self.assertIn(str(segment), message)
        self.assertEqual(segment.read_bytes(), damaged)

    async def test_term_and_vote_without_log(self) -> None:
        """What is found wrong only after the start ends the process likewise."""
        config, http = self.settings()
        node = await self.node(config)
        await self.request(http, "PUT", "/v1/kv/a", b"1")
        await node.terminate()
        rmtree(self.directory / "n1" / "log")

        message = await self.refused("--config", str(config))

        self.assertIn("the log is empty", message)

    async def test_parts_of_another_cluster(self) -> None:
        """Log, state and snapshots of a node of the same name elsewhere are refused."""
        config, http = self.settings()
        config.write_text(
            config.read_text().replace("raft: {", f"raft: {{{MANY_SNAPSHOTS}, ")
        )
        here, there = self.directory / "n1", self.directory / "elsewhere"
        for directory in (there, here):
            node = await self.node(config)
            await self.request(http, "PUT", "/v1/kv/a", b"1")
            await node.written("took snapshot")
            await node.terminate()
            if directory is there:
                here.rename(there)

        for part, reason in (
            ("log", "belongs to another data directory than the file `state`"),
            ("state", "belongs to another data directory than the file `state`"),
            ("snapshots", "is of cluster"),
        ):
            exchange(here / part, there / part)
            message = await self.refused("--config", str(config))
            self.assertIn(reason, message)
            self.assertIn("add it again with join: true", message)
            exchange(here / part, there / part)

        await self.node(config)
        got = await self.request(http, "GET", "/v1/kv/a?raw")
        self.assertEqual(got, (200, b"1"))

    async def test_bad_settings(self) -> None:
        """Every fault is told once, by line, before anything is opened."""
        config = self.directory / "bad.yaml"
        config.write_text("data_dir: d\nperrs: []\nstore: bolt\n")

        node = self.spawn("-n", "--pidfile=", "raft", "--config", "bad.yaml")

        self.assertEqual(await node.status(), 1)
        self.assertNotIn("Traceback", node.output)
        self.assertEqual(node.output.count("bad.yaml:2: perrs"), 1)
        self.assertEqual(node.output.count("bad.yaml:3: store"), 1)
        self.assertEqual(os.listdir(self.directory), ["bad.yaml"])

    async def test_check_config(self) -> None:
        """`--check-config` prints the settings and starts nothing."""
        config, _ = self.settings()

        node = self.spawn("raft", "--check-config", "--config", str(config))

        self.assertEqual(await node.status(), 0)
        self.assertIn(f"data_dir: {self.directory}/n1\n", node.output)
        self.assertEqual(os.listdir(self.directory), ["n1.yaml"])


class Daemon(TwistdTestCase):
    """`twistd raft`, in the background."""

    async def test_serve_and_stop(self) -> None:
        """The start reports success; SIGTERM ends the daemon within 5 seconds."""
        config, http = self.settings()
        starter = self.spawn("--logfile=log", "raft", "--config", str(config))
        self.assertEqual(await starter.status(), 0)
        daemon = os.pidfd_open(int((self.directory / "twistd.pid").read_text()))
        self.addCleanup(os.close, daemon)
        self.addCleanup(_kill, daemon)

        put = await self.request(http, "PUT", "/v1/kv/a", b"1")
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        await _ended(daemon)

        self.assertEqual(put, (200, b"true"))
        self.assertNotIn("Traceback", (self.directory / "log").read_text())
        self.assertFalse((self.directory / "twistd.pid").exists())

    async def test_refused(self) -> None:
        """The start reports what prevents it, and leaves no pid file."""
        config, _ = self.settings("n1")
        await self.node(config)
        other, _ = self.settings("n2", data_dir="n1")

        starter = self.spawn("--logfile=log", "raft", "--config", str(other))

        self.assertEqual(await starter.status(), 1)
        self.assertIn("An error has occurred", starter.output)
        self.assertIn("in use by process", (self.directory / "log").read_text())
        # It tells its starter first, and removes the file as it ends.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            daemon = os.pidfd_open(int((self.directory / "twistd.pid").read_text()))
            self.addCleanup(os.close, daemon)
            await _ended(daemon)
        self.assertFalse((self.directory / "twistd.pid").exists())


async def _ended(pidfd: int) -> None:
    """Wait until the process ends, which is when its descriptor is readable."""
    from twisted.internet import reactor
    from twisted.internet.abstract import FileDescriptor

    ended: Deferred[None] = Deferred()

    class Reader(FileDescriptor):
        def fileno(self) -> int:
            return pidfd

        def doRead(self) -> None:
            reactor.removeReader(self)  # type: ignore[attr-defined]
            ended.callback(None)

    reader = Reader(reactor)
    reactor.addReader(reader)  # type: ignore[attr-defined]
    ended.addBoth(lambda result: (reactor.removeReader(reader), result)[1])  # type: ignore[attr-defined]
    await ended.addTimeout(STOP_TIMEOUT, reactor)


def _kill(pidfd: int) -> None:
    ended, _, _ = select.select([pidfd], [], [], 0)
    if not ended:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
