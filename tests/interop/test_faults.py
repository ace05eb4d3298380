"""Servers of either kind are killed and come back, and nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time

from tests.interop.cluster import InteropTestCase, Writers
from tests.interop.processes import HEARTBEAT, Member, Refused, wait_until

ROUNDS = 6


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
        self.ask_leader("barrier")
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
        self.check_counted()


class PreVoteInVain(InteropTestCase):
    """Our pre-votes where no peer is there to answer."""

    def check_term_stays(self, python: Member) -> None:
        """Let *python* ask for pre-votes many times over, all in vain."""
        wait_until("it has no leader", lambda: not python.ask("status")["leader"])
        term = python.ask("status")["term"]
        for _ in range(ROUNDS):
            time.sleep(HEARTBEAT)
            self.assertEqual(python.ask("status")["term"], term)

    def test_peers_that_are_gone(self) -> None:
        """A dial that fails is no vote, so the term stays as it is."""
        go, other, python = self.form(["go", "go", "python"], 3)
        go.kill()
        other.kill()

        self.check_term_stays(python)

        go.start()
        other.start()
        self.ask_leader("barrier")

    def test_peers_that_are_silent(self) -> None:
        """A peer that takes a request and says nothing is no vote either."""
        go, other, python = self.form(["go", "go", "python"], 3)
        for member in (go, other):
            member.send_signal(signal.SIGSTOP)

        self.check_term_stays(python)

        for member in (go, other):
            member.send_signal(signal.SIGCONT)
        self.ask_leader("barrier")


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
        self.ask_leader("verify")

    def test_go(self) -> None:
        """Go leads two Python servers."""
        self.check(["go", "python", "python"])

    def test_python(self) -> None:
        """Python leads two Go servers."""
        self.check(["python", "go", "go"])
