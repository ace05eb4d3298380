"""Clusters of real processes, for tests: members by name, their ports and files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from tests.support.twistd import Twistd, TwistdTestCase, free_port
from txraft.core.entry import LogType
from txraft.kv.state import KeyValueFSM
from txraft.node.levels import apply_activation
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.snapshots import FileSnapshotStore

CONVERGE_SECONDS = 60.0
NO_ANSWER = (ConnectError, ConnectionLost, ResponseFailed, ResponseNeverReceived)
"""How a request ends when the process that should answer it dies."""

LEADERLESS = (500, 503)
"""What is answered while a busy machine has cost a leader its leadership."""


@dataclass
class Member:
    """One member: where it is, and its process while it runs."""

    name: str
    peer_port: int
    http_port: int
    config: Path
    process: Twistd | None = None

    @property
    def address(self) -> str:
        """Its address as peers dial it."""
        return f"127.0.0.1:{self.peer_port}"


class ClusterTestCase(TwistdTestCase):
    """Starts members in a directory of its own, and ends them, come what may."""

    timeout = 300
    election, lease = "400ms", "300ms"

    def setUp(self) -> None:
        super().setUp()
        self.random = random.Random()
        self.members: list[Member] = []

    def make_member(self, name: str, raft: str = "") -> Member:
        """Choose ports for a member and write its settings; `found` or `join` next."""
        member = Member(name, free_port(), free_port(), self.directory / f"{name}.yaml")
        member.config.write_text(
            f"data_dir: {name}\n"
            f"listen: tcp:{member.peer_port}:interface=127.0.0.1\n"
            f"http: {{listen: 'tcp:{member.http_port}:interface=127.0.0.1'}}\n"
            f"raft: {{heartbeat_timeout: {self.election}, "
            f"election_timeout: {self.election}, leader_lease_timeout: {self.lease}"
            f"{raft}}}\n"
        )
        return member

    async def found(self, size: int, raft: str = "") -> None:
        """Bootstrap a cluster of *size* members and wait for its leader."""
        self.members = [self.make_member(f"n{i}", raft) for i in range(size)]
        peers = ", ".join(member.address for member in self.members)
        for member in self.members:
            self.extend(member, f"peers: [{peers}]\n")
            await self.start(member)
        await self.leader()

    def extend(self, member: Member, settings: str) -> None:
        """Add lines to the settings of *member*."""
        member.config.write_text(member.config.read_text() + settings)

    async def start(self, member: Member) -> None:
        """Start the process of *member* and wait until it takes part."""
        member.process = await self.node(member.config)

    async def kill(self, member: Member) -> None:
        """End the process of *member* with SIGKILL."""
        assert member.process is not None, "it runs"
        process, member.process = member.process, None
        process.transport.signalProcess("KILL")
        await process.ended

    async def stop_all(self) -> None:
        """End every process in good order."""
        for member in self.members:
            if member.process is not None:
                await member.process.terminate()
                member.process = None

    async def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        from twisted.internet import reactor

        await deferLater(reactor, seconds)

    async def leader(self) -> Member:
        """Wait until the members that run agree on one of them as leader."""
        for _ in range(round(CONVERGE_SECONDS / 0.1)):
            running = [m for m in self.members if m.process is not None]
            said = set()
            for member in running:
                said.add(await self.ask(member, "GET", "/v1/status/leader"))
            for member in running:
                if said == {(200, f'"{member.address}"'.encode())}:
                    return member
            await self.sleep(0.1)
        raise AssertionError(f"no leader is agreed on: {said}")

    async def ask(
        self, member: Member, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, bytes]:
        """Make one request; status 0 stands for no answer at all."""
        try:
            return await self.request(member.http_port, method, path, data)
        except NO_ANSWER as failure:
            return 0, str(failure).encode()

    async def settled(
        self, member: Member, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, bytes]:
        """Make a request that may be repeated, until a leader has answered it."""
        for _ in range(round(CONVERGE_SECONDS / 0.1)):
            answer = await self.ask(member, method, path, data)
            if answer[0] not in LEADERLESS:
                return answer
            await self.sleep(0.1)
        raise AssertionError(f"{member.name} {method} {path}: {answer}")

    async def until(
        self, member: Member, path: str, expected: tuple[int, bytes]
    ) -> None:
        """Wait until a GET of *path* at *member* brings what is *expected*."""
        for _ in range(round(CONVERGE_SECONDS / 0.1)):
            found = await self.ask(member, "GET", path)
            if found == expected:
                return
            await self.sleep(0.1)
        raise AssertionError(f"{member.name} {path}: {found}, not {expected}")

    def on_disk(self, member: Member) -> KeyValueFSM:
        """Apply what a stopped member has on disk to a state machine of its own."""
        fsm = KeyValueFSM()
        directory = DataDirectory(self.directory / member.name, member.address)
        applied = 0
        snapshots = FileSnapshotStore(directory.path, retain=2)
        for meta in snapshots.list()[:1]:
            fsm.restore(snapshots.open(meta.id)[1])
            applied = meta.index
        log = FileLog(directory.log, member.address)
        for index in range(max(log.first_index(), applied + 1), log.last_index() + 1):
            entry = log.get_log(index)
            if entry.type is LogType.COMMAND:
                fsm.apply(entry)
            elif entry.type is LogType.NOOP:
                apply_activation(fsm, entry)
        log.close()
        directory.close()
        return fsm


async def together(tasks: list[Deferred[None]]) -> None:
    """Wait for all *tasks*; the first failure is raised when all have ended."""
    failures = []
    for task in tasks:
        try:
            await task
        except Exception as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
