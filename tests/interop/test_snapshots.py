"""A follower that fell behind gets a snapshot from a leader of the other kind."""

from __future__ import annotations

from tests.interop.cluster import InteropTestCase
from tests.interop.processes import Member, wait_until


class Snapshots(InteropTestCase):
    """Two servers of each kind that keep few entries behind a snapshot."""

    def check(self, protocol: int) -> None:
        """Let a follower of each kind miss more than the leader keeps."""
        members = self.form(
            ["go", "python", "go", "python"], protocol, trailing_logs=16
        )
        go, python = members[2], members[3]

        self.fall_behind(python, leader=go)
        self.fall_behind(go, leader=python)

        self.check_counted()

    def fall_behind(self, follower: Member, leader: Member) -> None:
        """Have *follower* caught up by a snapshot of *leader*, which leads throughout.

        On a busy machine it may lose its leadership; then it is done again.
        """
        for _ in range(3):
            self.make_lead(leader)
            if self.try_to_fall_behind(follower, leader):
                return
        raise AssertionError(f"{leader.id} loses its leadership each time")

    def try_to_fall_behind(self, follower: Member, leader: Member) -> bool:
        """Stop *follower* while *leader* compacts its log, and have it back."""
        follower.kill()
        self.load(leader, f"without {follower.id}", 1000)
        leader.ask("snapshot")
        covered = leader.ask("status")["snapshot"]
        follower.start()

        wait_until(
            f"{follower.id} has the snapshot of {leader.id}",
            lambda: follower.ask("status")["snapshot"] >= covered or not leader.leads,
        )
        self.wait_equal()
        return bool(follower.ask("status")["snapshot"] >= covered)

    def test_version_1(self) -> None:
        """At protocol version 1."""
        self.check(1)

    def test_version_2(self) -> None:
        """At protocol version 2."""
        self.check(2)

    def test_version_3(self) -> None:
        """At protocol version 3."""
        self.check(3)
