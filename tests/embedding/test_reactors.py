"""Tests of nodes inside a loop of asyncio, and of the reactor that they share there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import Forge
from tests.support.twistd import free_port
from txraft.embedding.reactors import EmbeddedReactor, borrow_reactor

ROOT = Path(__file__).parents[2]

PROGRAM = """\
import asyncio, importlib, json, os, sys, threading

from txraft import Config, Node, NotLeader, RaftError
from txraft.testing.cluster import ListFSM

directory, loop, tls, *peers = sys.argv[1:]
tls = json.loads(tls)
QUICK = Config(heartbeat_timeout=0.3, election_timeout=0.3, leader_lease_timeout=0.3)


def node(address):
    name = address.partition(":")[2]
    return Node(
        f"{directory}/{name}",
        ListFSM(),
        address=address,
        peers=peers,
        tls=tls.get(address),
        config=QUICK,
    )


async def use(node):
    while True:  # a leader whose process has no processor for a while may step down
        try:
            await node.apply(b"x")
            await node.linearizable()
            return
        except RaftError as error:
            assert not isinstance(error, NotLeader), "ten seconds without a leader"


async def main():
    nodes = [node(address) for address in peers]
    await asyncio.gather(*(each.start() for each in nodes))
    await asyncio.gather(*(use(each) for each in nodes))
    print("used")
    await nodes[0].stop()
    await asyncio.sleep(0)
    print("the loop runs on, and so do the others:", nodes[1].raft.state != "Shutdown")
    await asyncio.gather(*(each.stop() for each in nodes))
    await asyncio.sleep(0)


def held():
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass  # that of the listing itself
    # Twisted keeps one for the process, to accept with when there is no other.
    descriptors = sorted(each for each in descriptors if each != os.devnull)
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join(30.0)  # it has nothing more to do, and ends
    return descriptors, threading.active_count()


run = asyncio.run if loop == "asyncio" else importlib.import_module(loop).run
run(asyncio.sleep(0))  # what a loop itself leaves is none of ours
before = held()
for _ in range(2 if loop == "asyncio" else 1):
    run(main())
    print("as before:", before == held(), before, held())
print("no reactor:", "twisted.internet.reactor" not in sys.modules)
"""


class NodesInALoop(SynchronousTestCase):
    """Three nodes over TCP in one process, in a loop that is not ours."""

    def check(self, loop: str, with_tls: bool) -> None:
        """Run them with the `run` of the module *loop*."""
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        with TemporaryDirectory() as directory:
            tls = _certificates(Path(directory), addresses) if with_tls else {}
            done = subprocess.run(
                [
                    *(sys.executable, "-c", PROGRAM),
                    *(directory, loop, json.dumps(tls), *addresses),
                ],
                env={"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        said = done.stdout.splitlines()
        self.assertEqual(done.stderr, "")
        self.assertEqual(len(said), 7 if loop == "asyncio" else 4, done.stdout)
        for first in range(0, len(said) - 1, 3):
            self.assertEqual(said[first], "used")
            self.assertTrue(said[first + 1].endswith(": True"), said[first + 1])
            self.assertIn("as before: True", said[first + 2])
        self.assertEqual(said[-1], "no reactor: True")

    def test_asyncio_leaves_nothing(self) -> None:
        """No descriptor and no thread is left, and no global reactor installed.

        They run twice, and the members prove to each other who they are, with TLS.
        """
        self.check("asyncio", with_tls=True)

    @skipUnless(find_spec("uvloop"), "uvloop is not installed")
    def test_uvloop_leaves_nothing(self) -> None:
        """The same holds for the loop of uvloop."""
        self.check("uvloop", with_tls=False)


def _certificates(directory: Path, addresses: list[str]) -> dict[str, object]:
    """Issue each member a certificate for a name of its own; return their `tls`."""
    forge = Forge(directory)
    names = {address: f"n{i}.example" for i, address in enumerate(addresses)}
    return {
        address: {
            "certificate": str((pair := forge.issue(name)).certificate),
            "private_key": str(pair.key),
            "ca": str(forge.ca_file),
            "server_names": names,
        }
        for address, name in names.items()
    }


class Borrowing(SynchronousTestCase):
    """`borrow_reactor` within a loop of asyncio."""

    def test_one_reactor_for_a_loop(self) -> None:
        """It is shared, and ends with the last who has borrowed it."""

        async def main() -> list[object]:
            first, second = borrow_reactor(), borrow_reactor()
            await first.give_back().asFuture(asyncio.get_running_loop())
            called = asyncio.Event()
            second.reactor.callLater(0, called.set)
            await called.wait()  # it still works
            await second.give_back().asFuture(asyncio.get_running_loop())
            third = borrow_reactor()
            await third.give_back().asFuture(asyncio.get_running_loop())
            return [first.reactor, second.reactor, third.reactor]

        first, second, third = asyncio.run(main())

        self.assertIsInstance(first, EmbeddedReactor)
        self.assertIs(first, second)
        self.assertIsNot(first, third)

    def test_two_loops_have_two(self) -> None:
        """A reactor belongs to its loop."""

        async def main() -> object:
            borrowed = borrow_reactor()
            await borrowed.give_back().asFuture(asyncio.get_running_loop())
            return borrowed.reactor

        self.assertIsNot(asyncio.run(main()), asyncio.run(main()))

    def test_give_back_cancels_what_was_to_come(self) -> None:
        """No call of a reactor that has ended disturbs its loop."""
        called: list[str] = []

        async def main() -> None:
            borrowed = borrow_reactor()
            borrowed.reactor.callLater(0.0, called.append, "late")
            await borrowed.give_back().asFuture(asyncio.get_running_loop())
            await asyncio.sleep(0.01)

        asyncio.run(main())

        self.assertEqual(called, [])

    def test_give_back_closes_its_pipes(self) -> None:
        """A process that runs loop after loop does not run out of descriptors."""

        async def main() -> tuple[list[str], list[str]]:
            before = os.listdir("/proc/self/fd")
            await borrow_reactor().give_back().asFuture(asyncio.get_running_loop())
            return before, os.listdir("/proc/self/fd")

        before, after = asyncio.run(main())

        self.assertEqual(before, after)
