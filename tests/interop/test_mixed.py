"""Clusters of Go and Python servers at protocol versions 1 to 3."""

from __future__ import annotations

from tests.interop.cluster import KINDS, InteropTestCase
from tests.interop.processes import Member


class Replication(InteropTestCase):
    """Each side leads in turn, under load."""

    def check(self, kinds: list[str], protocol: int) -> None:
        """Load through a leader of each kind; all must apply the same."""
        members = self.form(kinds, protocol)
        for leader in of_each_kind(members):
            self.make_lead(leader)
            self.load(leader, f"under {leader.kind}", 10_000)
            self.check_pipelines(leader)
            leader.ask("barrier")
            leader.ask("verify")
        self.check_counted()

    def check_pipelines(self, leader: Member) -> None:
        """Requests to the other kind did not wait for each other's answers."""
        others = [m.address for m in self.members if m.kind != leader.kind]
        if leader.kind == "go":
            lines = leader.log.splitlines()
            piped = [line for line in lines if "pipelining replication" in line]
            for address in others:
                self.assertIn(address, "".join(piped))
        else:
            window = leader.ask("window")
            self.assertEqual({window[address] for address in others}, {2})

    def test_one_go_two_python_version_1(self) -> None:
        """At protocol version 1, founded by Go."""
        self.check(["go", "python", "python"], 1)

    def test_two_go_one_python_version_1(self) -> None:
        """At protocol version 1, founded by Python."""
        self.check(["python", "go", "go"], 1)

    def test_one_go_two_python_version_2(self) -> None:
        """At protocol version 2, founded by Python."""
        self.check(["python", "go", "python"], 2)

    def test_two_go_one_python_version_2(self) -> None:
        """At protocol version 2, founded by Go."""
        self.check(["go", "python", "go"], 2)

    def test_one_go_two_python_version_3(self) -> None:
        """At protocol version 3, founded by Go."""
        self.check(["go", "python", "python"], 3)

    def test_two_go_one_python_version_3(self) -> None:
        """At protocol version 3, founded by Python."""
        self.check(["python", "go", "go"], 3)


class Decisions(InteropTestCase):
    """What our leader decides for its cluster, as the data of a no-op."""

    def check(self, protocol: int) -> None:
        """It changes nothing there, and a Go leader passes it on as it got it."""
        ours, other, _ = self.form(["python", "go", "go"], protocol)
        self.make_lead(ours)
        ours.ask("decide", address=other.address)
        self.load(ours, "afterwards", 100)
        self.make_lead(other)
        joiner = self.make("python", protocol)
        joiner.start()
        other.ask("add", **joiner.names)
        self.load(other, "under go", 100)
        self.check_counted()
        segments = sorted((joiner.directory / "log").iterdir())
        log = b"".join(segment.read_bytes() for segment in segments)
        self.assertIn(b"txraft-void:", log)

    def test_version_1(self) -> None:
        """At protocol version 1."""
        self.check(1)

    def test_version_3(self) -> None:
        """At protocol version 3."""
        self.check(3)


class Versions(InteropTestCase):
    """Servers of different protocol versions, where ids are addresses."""

    def check(self, kinds: list[str], go: int, python: int) -> None:
        """Let each kind lead, add a server, and send a snapshot."""
        members = self.form(kinds, go, python, named=False, trailing_logs=16)
        for leader in of_each_kind(members):
            self.make_lead(leader)
            self.load(leader, f"under {leader.kind}", 200)
            leader.ask("barrier")
            leader.ask("verify")
            other = next(kind for kind in KINDS if kind != leader.kind)
            joiner = self.make(other, go if other == "go" else python, named=False)
            leader.ask("snapshot")
            joiner.start()
            leader.ask("add", **joiner.names)
            self.wait_equal()
            self.assertGreater(joiner.ask("status")["snapshot"], 0)
            leader.ask("remove", **joiner.names)
            joiner.kill()
        self.load(self.leader(), "in the end", 200)
        self.check_counted()

    def test_version_0_among_version_1_founded_by_go(self) -> None:
        """We speak version 0, and the bootstrap entry is Go's."""
        self.check(["go", "go", "python"], 1, 0)

    def test_version_0_among_version_1_founded_by_python(self) -> None:
        """We speak version 0 and found the cluster, as 0.1.0 would."""
        self.check(["python", "python", "go"], 1, 0)

    def test_version_1_among_version_2(self) -> None:
        """We are one version behind."""
        self.check(["go", "go", "python"], 2, 1)

    def test_version_2_among_version_1(self) -> None:
        """We are one version ahead."""
        self.check(["go", "go", "python"], 1, 2)

    def test_version_2_among_version_3(self) -> None:
        """We are one version behind."""
        self.check(["python", "go", "go"], 3, 2)

    def test_version_3_among_version_2(self) -> None:
        """We are one version ahead."""
        self.check(["python", "go", "go"], 2, 3)


def of_each_kind(members: list[Member]) -> list[Member]:
    """Choose a member of each kind."""
    return list({member.kind: member for member in members}.values())
