"""The command and the client against three processes on loopback."""

from __future__ import annotations

import json
import os
import sys

from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue

from tests.support.process_clusters import ClusterTestCase
from tests.support.twistd import CHECKOUT
from txraft.client import Client, LockLost

COMMAND = "import sys; sys.argv[0] = 'txraft'; from txraft.cli.app import main; main()"


class Cluster(ClusterTestCase):
    """One cluster, used as people do."""

    async def txraft(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command; return its status, output and errors."""
        urls = ",".join(f"127.0.0.1:{m.http_port}" for m in self.members)
        environment = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "TXRAFT_HTTP_ADDR": urls,
        }
        out, err, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", COMMAND, *arguments],
            environment,
            str(self.directory),
        )
        return status, out.decode(), err.decode()

    def client(self) -> Client:
        """Make a client of all members, which is closed with the test."""
        from twisted.internet import reactor

        urls = [f"http://127.0.0.1:{m.http_port}" for m in self.members]
        client = Client(urls, reactor, exactly_once=True)
        self.addCleanup(client.close)
        return client

    async def test_command(self) -> None:
        """Status, a lock around a command, a backup, what the doctor says."""
        await self.found(3)

        one = ("--http-addr", f"127.0.0.1:{self.members[0].http_port}")
        for _ in range(50):
            status, table, _ = await self.txraft("status", *one)
            if table.count("http://") == 3:  # each has told where it serves HTTP
                break
        self.assertEqual(status, 0)
        self.assertEqual(table.count("follower"), 2, table)
        self.assertEqual(table.count("leader"), 1, table)

        script = 'echo "fence $TXRAFT_LOCK_FENCE"; exit 7'
        locked = await self.txraft("lock", "jobs/a", "--", "sh", "-c", script)
        self.assertEqual(locked[0], 7, locked)
        self.assertRegex(locked[1], r"^fence [1-9]\d*\n$")

        await self.txraft("kv", "put", "a", "1")
        saved = await self.txraft("snapshot", "save", "backup.tgz", "--json")
        self.assertEqual(json.loads(saved[1])["keys"], 2, saved)
        await self.txraft("kv", "delete", "a")
        await self.txraft("snapshot", "restore", "backup.tgz", "--yes")
        self.assertEqual((await self.txraft("kv", "get", "a"))[1], "1")

        before = await self.leader()
        self.assertEqual((await self.txraft("transfer"))[0], 0)
        after = await self.leader()
        self.assertIsNot(before, after)

        process = after.process
        assert process is not None, "it leads"
        await process.terminate()
        after.process = None
        self.assertIn("became Follower", process.output, "it hands leadership over")

        status, said, _ = await self.txraft("doctor")
        self.assertEqual(status, 1)
        self.assertIn(f"127.0.0.1:{after.http_port} does not answer", said)

    async def test_client(self) -> None:
        """A client goes on through the death of the leader; its lock too."""
        await self.found(3)
        client = self.client()

        async with client.lock("lock", b"me", ttl=10) as lock:
            fence = lock.fence
            await self.kill(await self.leader())
            for number in range(20):
                await client.put(f"k{number}", b"%d" % number)
            lock.check()
            guarded = lock.guard(client.cas("once", b"x", 0))
            self.assertIs(await guarded, True)

            elsewhere: Deferred[object] = Deferred()
            guarded_longer = lock.guard(elsewhere)
            await self.txraft("kv", "delete", "lock")
            await self.assertFailure(guarded_longer, LockLost)

        records = await client.tree("k")
        self.assertEqual(len(records), 20)
        async with client.lock("lock", lock_delay=0) as another:
            self.assertGreater(another.fence, fence, "though the key was deleted")
