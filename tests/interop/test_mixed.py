"""Clusters of Go and Python servers at protocol versions 1 to 3."""

from __future__ import annotations

from tests.interop.cluster import InteropTestCase, Member


class Replication(InteropTestCase):
    """Each side leads in turn, under load."""

    def check(self, kinds: list[str], protocol: int) -> None:
        """Load through a leader of each kind; all must apply the same."""
        members = self.form(kinds, protocol)
        for leader in self.of_each_kind(members):
            self.make_lead(leader)
            self.load(leader, f"under {leader.kind}", 10_000)
            leader.ask("barrier")
            leader.ask("verify")
        applied = self.wait_equal()
        self.assertEqual(applied["count"], 20_000)

    def of_each_kind(self, members: list[Member]) -> list[Member]:
        """Choose a member of each kind."""
        return list({member.kind: member for member in members}.values())

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
