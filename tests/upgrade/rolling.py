"""A cluster under load whose members are replaced by another version, one by one."""

from __future__ import annotations

import json
from signal import SIGTERM

from twisted.internet.defer import Deferred

from tests.support.process_clusters import ClusterTestCase, Member, together
from tests.support.twistd import CHECKOUT
from tests.upgrade.earlier import lay_out

WRITERS = 3
SETTLED_SECONDS = 1.0
"""Longer than a level takes to become active when nothing keeps it from that."""


class Rolling(ClusterTestCase):
    """Three members, each of the version that `new` says."""

    def setUp(self) -> None:
        """Begin with the earlier version everywhere."""
        super().setUp()
        self.earlier = self.directory / "earlier"
        lay_out(self.earlier)
        self.new: set[str] = set()
        self.running = True
        self.acknowledged: dict[str, bytes] = {}

    async def start(self, member: Member) -> None:
        """Start *member* in its version."""
        is_new = member.name in self.new
        self.package = CHECKOUT if is_new else self.earlier
        await super().start(member)
        known = await self.level(member, "level")
        self.assertEqual(known is not None, is_new, "it runs the version meant")

    async def level(self, member: Member, key: str = "active_level") -> int | None:
        """Return a level that *member* tells; None of a version without levels."""
        status, body = await self.ask(member, "GET", "/v1/agent/self")
        self.assertEqual(status, 200, body)
        found = json.loads(body)["Stats"]["raft"].get(key)
        return None if found is None else int(found)

    async def replace(self, member: Member, kill: bool = False) -> None:
        """Stop *member*, and start its other version on the same directory."""
        if kill:
            await self.kill(member)
        else:
            assert member.process is not None, "it runs"
            self.assertIn(await member.process.terminate(), (0, -SIGTERM))
            member.process = None
        self.new ^= {member.name}
        await self.start(member)
        await self.leader()
        before = len(self.acknowledged)
        while len(self.acknowledged) < before + 20:
            await self.sleep(0.02)

    async def write(self, writer: int) -> None:
        """Write numbers to keys of their own, through one member after the other."""
        number = 0
        while self.running:
            number += 1
            member = self.members[number % len(self.members)]
            key = f"{writer}/{number}"
            path, value = f"/v1/kv/{key}", b"%d" % number
            status, body = await self.ask(member, "PUT", path, value)
            if status == 200:
                self.assertEqual(body, b"true")
                self.acknowledged[key] = value
            await self.sleep(0.02)

    async def rolled(self, *steps: tuple[int, bool]) -> None:
        """Replace members under load, then compare what all of them have."""
        writers = [Deferred.fromCoroutine(self.write(i)) for i in range(WRITERS)]
        try:
            for position, kill in steps:
                await self.check_level()
                await self.replace(self.members[position], kill)
            await self.check_level()
        finally:
            self.running = False
            await together(writers)
        put = await self.ask(await self.leader(), "PUT", "/v1/kv/last", b"1")
        self.assertEqual(put, (200, b"true"))
        for member in self.members:
            await self.until(member, "/v1/kv/last?raw&stale", (200, b"1"))
        await self.stop_all()
        states = [self.on_disk(member) for member in self.members]
        self.assertEqual(len({state.digest() for state in states}), 1)
        for key, value in self.acknowledged.items():
            record = states[0].get(key)
            self.assertEqual(record and record.value, value, key)
        self.assertGreater(len(self.acknowledged), 100)

    async def check_level(self) -> None:
        """See that the new level is active when all have it, and only then."""
        new = [member for member in self.members if member.name in self.new]
        if len(new) < len(self.members):
            await self.sleep(SETTLED_SECONDS)
            for member in new:
                self.assertEqual(await self.level(member), 0)
            return
        for member in new:
            known = await self.level(member, "level")
            self.assertTrue(known, "this version has a level that the earlier lacks")
            for _ in range(100):
                if await self.level(member) == known:
                    break
                await self.sleep(0.1)
            self.assertEqual(await self.level(member), known)

    async def test_upgrade(self) -> None:
        """Nothing is lost, and the new level is active after the last one."""
        await self.found(3)
        await self.rolled((0, False), (1, True), (2, False))

    async def test_rollback(self) -> None:
        """Before the last one is replaced, all may go back, and nothing is lost."""
        await self.found(3)
        await self.rolled((2, False), (0, False), (2, True), (0, False))
