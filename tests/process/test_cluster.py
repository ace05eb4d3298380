"""Three processes form a cluster: it loses nothing and grows and shrinks."""

from __future__ import annotations

import json
from base64 import b64decode

from twisted.internet.defer import Deferred

from tests.support.process_clusters import ClusterTestCase, together

KILLS = 5
WRITERS = 4
READERS = 2


class LeaderKills(ClusterTestCase):
    """Concurrent writers and readers while the leader is killed again and again."""

    async def test_kill_leader(self) -> None:
        """No acknowledged write is lost, no read goes back, all replicas are equal."""
        await self.found(3, raft=", snapshot_threshold: 200, snapshot_interval: 500ms")
        self.running = True
        self.acknowledged: dict[str, bytes] = {}
        self.registers = [""] * WRITERS
        self.least = [0] * WRITERS
        self.reads = 0
        tasks = [
            *(Deferred.fromCoroutine(self.write(i)) for i in range(WRITERS)),
            *(Deferred.fromCoroutine(self.read(i)) for i in range(READERS)),
        ]

        try:
            for _ in range(KILLS):
                await self.sleep(self.random.uniform(0.3, 1.5))
                leader = await self.leader()
                await self.kill(leader)
                await self.sleep(self.random.uniform(0.0, 1.0))
                await self.start(leader)
            while len(self.acknowledged) <= 100 or self.reads <= 50:
                await self.sleep(0.1)  # so that something was at stake
        finally:
            self.running = False
            await together(tasks)

        put = await self.settled(self.members[0], "PUT", "/v1/kv/last", b"1")
        self.assertEqual(put, (200, b"true"))
        for member in self.members:
            await self.until(member, "/v1/kv/last?raw&stale", (200, b"1"))
        await self.stop_all()
        states = [self.on_disk(member) for member in self.members]
        self.assertEqual(len({state.digest() for state in states}), 1)
        lost = {}
        for key, value in self.acknowledged.items():
            record = states[0].get(key)
            if record is None or int(record.value) < int(value):
                lost[key] = (value, record)
        self.assertEqual(lost, {})

    async def write(self, writer: int) -> None:
        """Write ever higher numbers, each to a key of its own and to a register.

        After an outcome that is unknown the register is left for a new one, because
        that write may still come.
        """
        number = epoch = 0
        while self.running:
            number += 1
            register = self.registers[writer] = f"register-{writer}-{epoch}"
            for key in (f"{writer}/{number}", register):
                status, _ = await self.put(key, number)
                if status == 200:
                    self.acknowledged[key] = b"%d" % number
                elif status != 503:
                    epoch += 1
                    break
            else:
                if status == 200:
                    self.least[writer] = number
            await self.sleep(0.005)

    async def put(self, key: str, number: int) -> tuple[int, bytes]:
        """Write through any member."""
        member = self.random.choice(self.members)
        answer = await self.ask(member, "PUT", f"/v1/kv/{key}", b"%d" % number)
        self.assertIn(answer[0], (0, 200, 500, 503))
        return answer

    async def read(self, reader: int) -> None:
        """Read registers through any member: never less than was seen or written."""
        seen: dict[str, int] = {}
        while self.running:
            writer = self.random.randrange(WRITERS)
            register = self.registers[writer]
            written = self.acknowledged.get(register, b"0")
            member = self.random.choice(self.members)
            status, body = await self.ask(member, "GET", f"/v1/kv/{register}")
            if status in (200, 404):
                value = b64decode(json.loads(body)[0]["Value"]) if body else b"0"
                least = max(seen.get(register, 0), int(written))
                self.assertGreaterEqual(int(value), least, f"{register} went back")
                seen[register] = int(value)
                self.reads += 1
            await self.sleep(0.005)


class Membership(ClusterTestCase):
    """A fourth node joins, a member leaves, a stranger is refused."""

    async def test_join_and_leave(self) -> None:
        """A node that waits to be added gets all keys; a member that leaves, leaves."""
        await self.found(
            3,
            raft=", trailing_logs: 5, snapshot_threshold: 20, snapshot_interval: 100ms",
        )
        for number in range(60):
            put = await self.settled(self.members[0], "PUT", f"/v1/kv/{number}", b"x")
            self.assertEqual(put, (200, b"true"))
        joiner = self.make_member("n3")
        self.extend(joiner, "join: true\n")
        self.members.append(joiner)
        await self.start(joiner)

        added = await self.settled(
            self.members[0], "PUT", f"/v1/operator/raft/peer?address={joiner.address}"
        )

        self.assertEqual(added, (200, b"true"))
        await self.until(joiner, "/v1/kv/59?raw&stale", (200, b"x"))
        through = await self.settled(joiner, "PUT", "/v1/kv/through", b"joiner")
        self.assertEqual(through, (200, b"true"))

        leader = await self.leader()
        removed = await self.ask(
            joiner, "DELETE", f"/v1/operator/raft/peer?address={leader.address}"
        )

        self.assertEqual(removed[0], 200, removed)
        assert leader.process is not None
        self.assertEqual(await leader.process.status(), 0)
        leader.process = None
        self.members.remove(leader)
        rest = sorted(member.address for member in self.members)
        listed = json.dumps(rest, separators=(",", ":")).encode()
        await self.leader()
        await self.until(joiner, "/v1/status/peers", (200, listed))
        again = await self.settled(joiner, "GET", "/v1/kv/through?raw")
        self.assertEqual(again, (200, b"joiner"))

    async def test_member_of_another_cluster(self) -> None:
        """A node that has committed elsewhere refuses, keeps its keys, says the way."""
        await self.found(3)
        stranger = self.make_member("n3")
        await self.start(stranger)
        for _ in range(3):
            await self.ask(stranger, "PUT", "/v1/kv/own", b"kept")

        add = f"/v1/operator/raft/peer?address={stranger.address}"
        status, reason = await self.settled(self.members[0], "PUT", add)
        self.assertEqual(status, 409)
        self.assertIn(b"another cluster", reason)

        await self.ask(self.members[0], "PUT", f"{add}&force")

        assert stranger.process is not None
        await stranger.process.written("join: true")
        own = await self.ask(stranger, "GET", "/v1/kv/own?raw&stale")
        self.assertEqual(own, (200, b"kept"))
        put = await self.settled(self.members[0], "PUT", "/v1/kv/a", b"1")
        self.assertEqual(put, (200, b"true"))
