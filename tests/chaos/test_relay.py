"""The relay: late bytes keep their order, and its counts are true."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.relay import QUEUE_BYTES, Conditions, Line, Pipe

LONG = 60.0


class Pipes(SynchronousTestCase):
    """One direction of connections to one peer."""

    def setUp(self) -> None:
        """Make a line on a clock."""
        self.clock = Clock()
        self.line = Line(self.clock, Random(1))

    def pipe(self) -> tuple[Pipe, StringTransport, StringTransport]:
        """Make a pipe, and the transports at its ends."""
        source, sink = StringTransport(), StringTransport()
        return Pipe(self.line, "peer", source, sink), source, sink

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([0.01] * round(seconds / 0.01))

    def test_good_line(self) -> None:
        """On a good line everything passes at once, and nothing is counted."""
        pipe, _, sink = self.pipe()

        pipe.take(b"one")

        self.assertEqual(sink.value(), b"one")
        self.assertEqual(self.line.tally.delayed, 0)

    def test_delay(self) -> None:
        """A piece is there after the delay, not before."""
        self.line.conditions = Conditions(delay=0.5)
        pipe, _, sink = self.pipe()

        pipe.take(b"one")

        self.advance(0.49)
        self.assertEqual(sink.value(), b"")
        self.advance(0.02)
        self.assertEqual(sink.value(), b"one")
        self.assertEqual(self.line.tally.delayed, 1)

    def test_order_within_a_connection(self) -> None:
        """However much delays differ, and also when they end, order is kept."""
        self.line.conditions = Conditions(jitter=1.0, spread=1.0, rate=1000)
        pipe, _, sink = self.pipe()
        numbers = [b"%d " % number for number in range(100)]

        for number in numbers[:50]:
            pipe.take(number * 20)
        self.advance(1.0)
        self.line.conditions = Conditions()
        for number in numbers[50:]:
            pipe.take(number * 20)
        self.advance(LONG)

        self.assertEqual(sink.value(), b"".join(number * 20 for number in numbers))

    def test_connections_overtake_each_other(self) -> None:
        """Of two connections to a peer one may be later: that is counted."""
        self.line.conditions = Conditions(spread=1.0)
        pipes = [self.pipe() for _ in range(5)]

        for pipe, _, _ in pipes:
            pipe.take(b"one")
        self.advance(1.0)

        self.assertTrue(all(sink.value() == b"one" for _, _, sink in pipes))
        self.assertGreater(self.line.tally.overtaken, 0)

    def test_crumbs(self) -> None:
        """At a low rate a message comes in crumbs, at that rate."""
        self.line.conditions = Conditions(rate=1000)
        pipe, _, sink = self.pipe()

        pipe.take(bytes(1000))

        self.advance(0.5)
        self.assertGreater(len(sink.value()), 400)
        self.assertLess(len(sink.value()), 700)
        self.advance(0.6)
        self.assertEqual(len(sink.value()), 1000)
        self.assertEqual(self.line.tally.crumbs, 20)

    def test_reset(self) -> None:
        """A reset cuts a message in the middle, and both ends lose the connection."""
        self.line.conditions = Conditions(resets=1.0)
        pipe, source, sink = self.pipe()

        pipe.take(b"together")
        self.advance(0.1)

        self.assertEqual(sink.value(), b"toge")
        self.assertTrue(source.disconnected)
        self.assertTrue(sink.disconnected)
        self.assertEqual(self.line.tally.resets, 1)

    def test_back_pressure(self) -> None:
        """Who sends more than fits waits until there is room again."""
        pipe, source, sink = self.pipe()
        producer: Any = sink.producer
        producer.pauseProducing()

        pipe.take(bytes(QUEUE_BYTES + 1))

        self.assertEqual((sink.value(), source.producerState), (b"", "paused"))
        producer.resumeProducing()
        self.assertEqual(source.producerState, "producing")
        self.assertEqual(len(sink.value()), QUEUE_BYTES + 1)

    def test_finish(self) -> None:
        """An end that closes in order closes the other one behind what it sent."""
        self.line.conditions = Conditions(delay=0.5)
        pipe, _, sink = self.pipe()

        pipe.take(b"last")
        pipe.finish()

        self.assertFalse(sink.disconnecting)
        self.advance(0.6)
        self.assertEqual((sink.value(), sink.disconnecting), (b"last", True))
