"""Three Go servers are replaced by three Python ones, one at a time, under load.

The steps are those of docs/how-to/moving-from-go.rst.
"""

from __future__ import annotations

import contextlib

from tests.interop.cluster import InteropTestCase, Writers
from tests.interop.processes import Member, Refused, wait_until


class Move(InteropTestCase):
    """From Go to Python without losing a write."""

    def check(self, protocol: int) -> None:
        """Replace every Go server while clients write."""
        servers = self.form(["go", "go", "go"], protocol)
        writers = Writers(self.members)
        try:
            for old in servers:
                new = self.add_python(protocol)
                self.retire(old, new)
        finally:
            writers.stop()
        self.assertEqual({m.kind for m in self.running}, {"python"})
        self.ask_leader("barrier")
        self.wait_equal()
        for member in self.running:
            found = {data for _, _, data in self.commands(member)}
            self.assertEqual(set(writers.acknowledged) - found, set())
        self.assertGreater(len(writers.acknowledged), 50)

    def add_python(self, protocol: int) -> Member:
        """Add a Python server and wait until it has what was committed before.

        At version 3 it gets its vote only then.
        """
        new = self.make("python", protocol)
        new.start()
        leader = self.ask_leader("nonvoter" if protocol == 3 else "add", **new.names)
        applied = leader.ask("applied")["last"]
        wait_until(
            f"{new.id} has caught up",
            lambda: new.ask("applied")["last"] >= applied,
        )
        if protocol == 3:
            self.ask_leader("add", **new.names)
        return new

    def retire(self, old: Member, successor: Member) -> None:
        """Remove a Go server, from leadership before, and stop it."""
        if self.leader() is old and old.protocol == 3:
            with contextlib.suppress(Refused):
                old.ask("transfer", **successor.names)
        self.ask_leader("remove", id=old.id, address=old.address)
        old.kill()
        wait_until(f"{old.id} is no member", lambda: self.is_gone(old))

    def is_gone(self, old: Member) -> bool:
        """Tell whether no server that runs counts *old* as a member."""
        return all(
            old.address not in {s["address"] for s in member.ask("status")["servers"]}
            for member in self.running
        )

    def test_version_1(self) -> None:
        """By address, with changes of membership only."""
        self.check(1)

    def test_version_2(self) -> None:
        """By address, in entries of type 5."""
        self.check(2)

    def test_version_3(self) -> None:
        """By id, with transfers of leadership."""
        self.check(3)
