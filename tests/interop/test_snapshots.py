"""A follower that fell behind gets a snapshot from a leader of the other kind."""

from __future__ import annotations

from tests.interop.cluster import InteropTestCase, Member, wait_until


class Snapshots(InteropTestCase):
    """Two servers of each kind that keep few entries behind a snapshot."""

    def check(self, protocol: int) -> None:
        """Let a follower of each kind miss more than the leader keeps."""
        members = self.form(
            ["go", "python", "go", "python"], protocol, trailing_logs=16
        )
        go, python = members[2], members[3]

        self.make_lead(go)
        self.fall_behind(python, leader=go)
        self.make_lead(python)
        self.fall_behind(go, leader=python)

        self.assertEqual(self.wait_equal()["count"], 2 * 1010)

    def fall_behind(self, follower: Member, leader: Member) -> None:
        """Stop *follower* while *leader* compacts its log, and have it back."""
        follower.kill()
        self.load(leader, f"without {follower.id}", 1000)
        leader.ask("snapshot")
        covered = leader.ask("status")["snapshot"]
        follower.start()

        wait_until(
            f"{follower.id} has the snapshot of {leader.id}",
            lambda: follower.ask("status")["snapshot"] >= covered,
        )
        self.load(leader, f"with {follower.id}", 10)
        self.wait_equal()

    def test_version_1(self) -> None:
        """At protocol version 1."""
        self.check(1)

    def test_version_2(self) -> None:
        """At protocol version 2."""
        self.check(2)

    def test_version_3(self) -> None:
        """At protocol version 3."""
        self.check(3)
