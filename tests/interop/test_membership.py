"""Servers of each kind are added and removed by leaders of each kind."""

from __future__ import annotations

from tests.interop.cluster import KINDS, InteropTestCase, Writers
from tests.interop.processes import Member, Refused, wait_until


class MembershipCase(InteropTestCase):
    """What the tests below share."""

    def join(self, leader: Member, kind: str, how: str = "add") -> Member:
        """Have *leader* add a new server of *kind*; return it, caught up."""
        joiner = self.make(kind, leader.protocol)
        joiner.start()
        leader.ask(how, **joiner.names)
        self.load(leader, f"for {joiner.id}", 50)
        self.wait_equal()
        return joiner

    def votes(self, member: Member, of: Member) -> bool | None:
        """Return whether *of* votes as *member* sees it, None if it is no member."""
        for server in member.ask("status")["servers"]:
            if server["address"] == of.address:
                self.assertEqual(server["id"], of.id)
                return bool(server["votes"])
        return None

    def wait_for_votes(self, expected: bool | None, of: Member) -> None:
        """Wait until all members agree on whether *of* votes."""
        wait_until(
            f"{of.id} votes: {expected}",
            lambda: {self.votes(member, of) for member in self.running} == {expected},
        )


class AddAndRemove(MembershipCase):
    """Two servers of each kind; a fifth comes and goes."""

    def check(self, protocol: int) -> None:
        """Let leaders of each kind add and remove servers of each kind."""
        self.form(["go", "python", "python"], protocol)
        for kind in KINDS:
            leader = next(m for m in self.running if m.kind == kind)
            for joining in KINDS:
                self.make_lead(leader)
                joiner = self.join(leader, joining)
                self.wait_for_votes(True, joiner)

                leader.ask("remove", id=joiner.id, address=joiner.address)

                if leader.kind == "python":
                    self.check_was_told(joiner, leader)
                joiner.kill()
                self.wait_for_votes(None, joiner)
                self.load(leader, f"without {joiner.id}", 50)
        self.check_counted()

    def check_was_told(self, removed: Member, leader: Member) -> None:
        """A leader of ours tells whom it removed that the removal is committed."""
        index = leader.ask("status")["commit"]
        wait_until(
            f"{removed.id} knows that it was removed",
            lambda: removed.ask("status")["commit"] >= index,
        )
        self.assertIsNone(self.votes(removed, removed))

    def test_version_1(self) -> None:
        """At protocol version 1, by address."""
        self.check(1)

    def test_version_2(self) -> None:
        """At protocol version 2, by address in entries of type 5."""
        self.check(2)

    def test_version_3(self) -> None:
        """At protocol version 3, by id."""
        self.check(3)


class Nonvoters(MembershipCase):
    """Servers without a vote, and transfers, at protocol version 3."""

    def check(self, kind: str) -> None:
        """Let a leader of *kind* take a server of the other kind through all states."""
        other = next(k for k in KINDS if k != kind)
        leader, follower = self.form([kind, other, kind], 3)[:2]
        joiner = self.join(leader, other, "nonvoter")
        self.wait_for_votes(False, joiner)

        leader.ask("add", **joiner.names)
        self.wait_for_votes(True, joiner)
        leader.ask("demote", id=joiner.id)
        self.wait_for_votes(False, joiner)
        if kind == "python":
            with self.assertRaises(Refused):
                leader.ask("transfer", **joiner.names)
        leader.ask("transfer", **follower.names)
        wait_until("the other kind leads", lambda: self.leader() is follower)
        follower.ask("verify")
        follower.ask("transfer", **leader.names)
        wait_until("this kind leads again", lambda: self.leader() is leader)
        leader.ask("remove", id=joiner.id)
        joiner.kill()
        self.wait_for_votes(None, joiner)
        self.wait_equal()

    def test_go_leads(self) -> None:
        """A Go leader and a Python server."""
        self.check("go")

    def test_python_leads(self) -> None:
        """A Python leader and a Go server."""
        self.check("python")


class Transfers(MembershipCase):
    """Our leaders hand over where Go's cannot: below protocol version 3."""

    def check(self, protocol: int) -> None:
        """Hand leadership to a Go server, under load, and nothing is lost."""
        python, go, _ = self.form(["python", "go", "go"], protocol)
        writers = Writers(self.members)
        try:
            python.ask("transfer", **go.names)
            wait_until("the Go server leads", lambda: self.leader() is go)
        finally:
            writers.stop()
        self.ask_leader("barrier")
        self.wait_equal()
        found = {data for _, _, data in self.commands(python)}
        self.assertEqual(set(writers.acknowledged) - found, set())

    def test_version_1(self) -> None:
        """At protocol version 1."""
        self.check(1)

    def test_version_2(self) -> None:
        """At protocol version 2."""
        self.check(2)
