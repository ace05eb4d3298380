"""Followers whose limits are lower than their leader's, over streams in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.transports import MemoryNetwork
from txraft.node.events import RaftState
from txraft.node.raft import Raft
from txraft.node.worker import MemoryWorker, Workers
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.peer_stores import StaticPeers
from txraft.testing import ListFSM
from txraft.testing.cluster import FAST
from txraft.transport.network import NetworkTransport
from txraft.wire.stream import MessageLimits

STEP = 0.005
ADDRESSES = ("a:1", "b:1", "c:1")
PATIENT = replace(
    FAST, heartbeat_timeout=0.4, election_timeout=0.4, leader_lease_timeout=0.4
)


class Receivers(SynchronousTestCase):
    """A cluster of three, of which c takes no message above 8 KB."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)
        self.machines: dict[str, ListFSM] = {}
        self.stores: dict[str, InmemStore] = {}
        self.rafts = {address: self.node(address) for address in ADDRESSES[:2]}
        self.addCleanup(self.stop)
        self.until(lambda: any(raft.leader for raft in self.rafts.values()))

    def node(self, address: str, is_small: bool = False) -> Raft:
        limits = MessageLimits(max_message_bytes=8192) if is_small else None
        config = replace(PATIENT, max_entry_bytes=2000, max_append_bytes=2000)
        transport = NetworkTransport(
            self.clock, self.network.layer(address), timeout=2.0, limits=limits
        )
        later = partial(self.clock.callLater, 0)
        store = self.stores.setdefault(address, InmemStore())
        fsm = ListFSM()
        self.machines[address] = fsm
        raft = Raft(
            config if is_small else PATIENT,
            fsm,
            store,
            store,
            InmemSnapshotStore(),
            StaticPeers(ADDRESSES),
            address,
            transport,
            clock=self.clock,
            workers=Workers(*(MemoryWorker(later) for _ in range(4))),
            random=Random(address),
        )
        transport.listen()
        raft.start()
        return raft

    def stop(self) -> None:
        for raft in self.rafts.values():
            raft.shutdown()
        self.until(lambda: not self.clock.getDelayedCalls(), 10.0)

    def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        for _ in range(round(seconds / STEP)):
            if condition():
                return
            self.clock.advance(STEP)
        self.fail(f"it did not become so within {seconds} s")

    @property
    def leader(self) -> Raft:
        return next(
            raft for raft in self.rafts.values() if raft.state is RaftState.LEADER
        )

    def apply(self, *sizes: int) -> None:
        """Commit commands of so many bytes."""
        self.until(
            lambda: any(raft.state is RaftState.LEADER for raft in self.rafts.values())
        )
        done: list[object] = []
        for size in sizes:
            self.leader.apply(b"x" * size).addCallback(done.append)
        self.until(lambda: len(done) == len(sizes))

    def test_requests_that_are_too_large_are_sent_in_pieces(self) -> None:
        """Each entry fits, some at once do not."""
        self.apply(*[1000] * 60)

        self.rafts["c:1"] = self.node("c:1", is_small=True)
        self.until(lambda: len(self.machines["c:1"].commands) == 60)

        self.assertNotIn("undeliverable_entries", self.leader.stats())

    def test_entry_that_is_too_large_is_named(self) -> None:
        """In the figures, until the follower comes back with limits that suit."""
        self.apply(1000, 9000, 1000)

        self.rafts["c:1"] = self.node("c:1", is_small=True)
        self.until(lambda: "undeliverable_entries" in self.leader.stats(), 20.0)

        named = self.leader.stats()["undeliverable_entries"]
        self.assertRegex(named, r"^entry 4 of term \d+ \(90\d\d bytes\) to c:1$")
        self.assertEqual(self.leader.metrics().peers["c:1"].undeliverable, 4)
        self.assertEqual(len(self.machines["c:1"].commands), 1)
        dials = self.network.dials
        self.clock.pump([STEP] * round(10 / STEP))
        self.assertLess(self.network.dials - dials, 12)

        self.rafts["c:1"].shutdown()
        self.clock.pump([STEP] * 200)
        self.rafts["c:1"] = self.node("c:1")
        self.until(lambda: len(self.machines["c:1"].commands) == 3)
        self.assertNotIn("undeliverable_entries", self.leader.stats())
