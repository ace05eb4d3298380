"""The transport inside one process alone: routes, cuts, latency."""

from __future__ import annotations

from functools import partial
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.contracts.samples import Recorder, agree, append
from txraft.transport.inmem import InmemTransport, new_inmem_addr
from txraft.transport.network import NetworkTransport


class Routes(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.here = InmemTransport(self.clock, "a:1")
        self.there = InmemTransport(self.clock, "b:1")
        self.here.connect("b:1", self.there)
        self.there.connect("a:1", self.here)
        self.here.set_handler(Recorder(agree))
        self.peer = Recorder()
        self.there.set_handler(self.peer)

    def test_request_on_its_way_is_lost_with_its_connection(self) -> None:
        """Nothing arrives after a cut, not even what was sent before it."""
        self.here.append_entries("b:1", append(3)).addErrback(lambda _: None)
        self.here.disconnect("b:1")
        self.clock.advance(1)
        self.assertEqual(self.peer.rpcs, [])

    def test_nothing_is_delivered_while_the_sender_is_on_the_stack(self) -> None:
        """A hop takes a turn of the clock, even without latency."""
        self.here.append_entries("b:1", append(3))
        self.assertEqual(self.peer.rpcs, [])
        self.clock.advance(0)
        self.assertEqual(len(self.peer.rpcs), 1)

    def test_latency_is_that_of_the_slower_end_and_keeps_order(self) -> None:
        """Lowering the latency lets nothing overtake on one connection."""
        pipeline = self.successResultOf(self.here.append_entries_pipeline("b:1"))
        self.there.latency = 0.1
        pipeline.append_entries(append(1))
        self.there.latency = 0.0
        pipeline.append_entries(append(2))
        self.clock.advance(0.05)
        self.clock.advance(0.06)
        self.assertEqual([rpc.command.term for rpc in self.peer.rpcs], [1, 2])

    def test_entries_are_copied(self) -> None:
        """A list that the sender goes on using does not change what was sent."""
        entries = list(append(1, entries=2).entries)
        request = append(1)
        request = type(request)(1, "a:1", 0, 0, entries, 0)
        self.here.append_entries("b:1", request)
        entries.clear()
        self.clock.advance(0)
        self.assertEqual(len(self.peer.rpcs[0].command.entries), 2)

    def test_each_node_has_its_own_entries(self) -> None:
        """What a state machine does to an entry, it does to its own alone."""
        pipeline = self.successResultOf(self.here.append_entries_pipeline("b:1"))
        for send in (partial(self.here.append_entries, "b:1"), pipeline.append_entries):
            request = append(1, entries=2)
            send(request)
            self.clock.advance(0)

            received = self.peer.rpcs[-1].command.entries
            self.assertEqual(list(received), list(request.entries))
            for ours, theirs in zip(request.entries, received, strict=True):
                self.assertIsNot(ours, theirs)
                self.assertEqual(ours.encoded, theirs.encoded)


class Timeouts(SynchronousTestCase):
    def test_call_without_a_timeout_is_refused(self) -> None:
        """A peer that is silent would hold what waits for it for ever."""
        clock = Clock()
        for timeout in (0, -1.0, float("nan")):
            for make in (
                lambda timeout: InmemTransport(clock, "a", timeout=timeout),
                lambda timeout: NetworkTransport(clock, None, timeout=timeout),  # type: ignore[arg-type]
            ):
                self.assertRaises(ValueError, make, timeout)


class InmemAddresses(SynchronousTestCase):
    def test_address_has_the_form_of_a_uuid_and_follows_the_seed(self) -> None:
        """The same source of chance makes the same addresses."""
        first, again = new_inmem_addr(Random(1)), new_inmem_addr(Random(1))
        self.assertEqual(first, again)
        self.assertEqual([len(part) for part in first.split("-")], [8, 4, 4, 4, 12])
        self.assertNotEqual(first, new_inmem_addr(Random(2)))
        self.assertEqual(InmemTransport(Clock(), random=Random(1)).local_addr(), first)
