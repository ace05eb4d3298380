"""Connections of which nothing is known yet, on a clock."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.unauthenticated import UnauthenticatedConnections


class PendingConnections(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        limits = ConnectionLimits(
            max_unauthenticated=4, max_unauthenticated_per_address=2
        )
        self.unauthenticated = UnauthenticatedConnections(self.clock, limits)
        self.away: list[tuple[str, str]] = []

    def enter(self, host: str, name: str) -> object:
        return self.unauthenticated.enter(
            host, lambda why: self.away.append((name, why)), "late"
        )

    def test_oldest_of_an_address_goes(self) -> None:
        """A flood from one address ends its own connections, not those of others."""
        self.enter("b", "other")
        for name in "123":
            self.enter("a", name)
        self.assertEqual([name for name, _ in self.away], ["1"])
        self.assertIn("too many unauthenticated", self.away[0][1])
        self.assertEqual(len(self.unauthenticated), 3)

    def test_oldest_of_all_goes(self) -> None:
        """A flood from many addresses never makes more than the limit wait."""
        for number in range(6):
            self.enter(str(number), str(number))
        self.assertEqual([name for name, _ in self.away], ["0", "1"])
        self.assertEqual(len(self.unauthenticated), 4)

    def test_flood_is_not_let_in(self) -> None:
        """While the oldest is new itself the newcomer goes; a peer has its while."""
        self.assertIsNone(self.unauthenticated.refusal_of("a"))
        self.enter("a", "1")
        self.enter("a", "2")
        self.assertIn("too many", str(self.unauthenticated.refusal_of("a")))
        self.assertIsNone(self.unauthenticated.refusal_of("b"))
        self.clock.advance(0.6)
        self.assertIsNone(self.unauthenticated.refusal_of("a"))

    def test_late(self) -> None:
        """Whoever has not proved anything in time goes; whoever has stays."""
        first = self.enter("a", "proved")
        self.enter("a", "silent")
        self.unauthenticated.leave(first)  # type: ignore[arg-type]
        self.clock.advance(4.9)
        self.assertEqual(self.away, [])
        self.clock.advance(0.2)
        self.assertEqual(self.away, [("silent", "late within 5 s")])
        self.assertEqual(len(self.unauthenticated), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaving_twice(self) -> None:
        pending = self.enter("a", "pending")
        self.unauthenticated.leave(pending)  # type: ignore[arg-type]
        self.unauthenticated.leave(pending)  # type: ignore[arg-type]
        self.assertEqual(self.clock.getDelayedCalls(), [])
