"""Servers of either kind are killed and come back, and nothing acknowledged is lost."""

from __future__ import annotations

from tests.interop.cluster import (
    InteropTestCase,
    Member,
    Refused,
    Writers,
    wait_until,
)


class Kills(InteropTestCase):
    """SIGKILL under load."""

    def check(self, kinds: list[str], protocol: int) -> None:
        """Kill every member in turn, leaders first, while clients write."""
        members = self.form(kinds, protocol)
        writers = Writers(members)
        try:
            for _ in range(2):
                self.kill_and_restart(self.leader())
            for member in members:
                self.kill_and_restart(member)
        finally:
            writers.stop()
        self.leader().ask("barrier")
        self.wait_equal()
        self.check_nothing_is_lost(writers, members)

    def kill_and_restart(self, member: Member) -> None:
        """Kill *member*, wait for a leader, and have it back."""
        member.kill()
        leader = self.leader()
        applied = leader.ask("applied")["last"]
        member.start()
        wait_until(
            f"{member.id} has caught up",
            lambda: member.ask("applied")["last"] > applied,
        )

    def check_nothing_is_lost(self, writers: Writers, members: list[Member]) -> None:
        """What a client was told is applied on every member."""
        for member in members:
            found = {data for _, _, data in self.commands(member)}
            self.assertEqual(set(writers.acknowledged) - found, set())
        self.assertGreater(len(writers.acknowledged), 50)

    def test_version_1(self) -> None:
        """One Go and two Python servers at protocol version 1."""
        self.check(["go", "python", "python"], 1)

    def test_version_2(self) -> None:
        """Two Go servers and one Python server at protocol version 2."""
        self.check(["go", "go", "python"], 2)

    def test_version_3(self) -> None:
        """Two Go servers and one Python server at protocol version 3."""
        self.check(["go", "go", "python"], 3)


class PreVote(InteropTestCase):
    """Our pre-votes among peers that do not know them."""

    def test_peer_that_closes(self) -> None:
        """A Go peer hangs up on a pre-vote; the only one with a whole log still wins.

        The other Go peer lags, so it can neither win nor elect anyone by itself.
        """
        go, laggard, python = self.form(["go", "go", "python"], 3)
        self.make_lead(go)
        laggard.kill()
        self.load(go, "without the laggard", 100)
        self.wait_equal()
        go.kill()

        laggard.start()

        self.assertIs(self.leader(), python)
        python.ask("barrier")
        self.assertEqual(self.wait_equal()["count"], 100)


class Alone(InteropTestCase):
    """A leader without a quorum."""

    def check(self, kinds: list[str]) -> None:
        """A leader of the first kind confirms nothing once the others are gone."""
        leader, *others = self.form(kinds, 1)
        self.make_lead(leader)
        for other in others:
            other.kill()

        with self.assertRaises(Refused):
            leader.ask("verify")

        wait_until("it does not lead", lambda: not leader.leads)
        for other in others:
            other.start()
        self.leader().ask("verify")

    def test_go(self) -> None:
        """Go leads two Python servers."""
        self.check(["go", "python", "python"])

    def test_python(self) -> None:
        """Python leads two Go servers."""
        self.check(["python", "go", "go"])
