"""`txraft peer`: a node becomes a member, in steps, and is told what that means."""

from __future__ import annotations

from tests.support.cli_commands import CommandCase
from txraft.cli.cluster import MOST_IN_VAIN
from txraft.cli.exits import Exit
from txraft.errors import NotAdmitted
from txraft.node.admission import Admission
from txraft.node.metrics import PeerMetrics


class Adding(CommandCase):
    def add(self, *options: str) -> tuple[int, str, str]:
        result = self.txraft("peer", "add", "n3:8300", *options)
        return result.exit_code, result.stdout, result.stderr

    def well(self, *addresses: str) -> None:
        """Let the leader hear *addresses*, which have all of its log."""
        self.n1.followers = {
            address: PeerMetrics(self.n1.index, 0, 0, 0.1, 0) for address in addresses
        }

    def test_tells_what_may_fail(self) -> None:
        """Two stand no failure, three stand one if all are well."""
        self.well("n3:8300")
        status, said, _ = self.add()
        self.assertEqual(status, Exit.OK)
        self.assertIn("n3:8300 is a member.", said)
        self.assertIn("Of 2 voters none may fail: add a third.", said)

        self.n1.members.add("n2:8300")
        self.assertIn("Of 3 voters 0 may fail, and 1 once all are well", self.add()[1])
        self.well("n2:8300", "n3:8300")

        self.assertIn("Of 3 voters 1 may fail.", self.add()[1])

    def test_shows_how_far_it_is(self) -> None:
        """It waits until the member has its vote."""
        self.n1.admissions = [Admission(False, left) for left in range(9000, 8950, -1)]

        status, said, progress = self.add()

        self.assertEqual(status, Exit.OK)
        self.assertRegex(progress, r"n3:8300 is a member, but lacks 89\d\d entries")
        self.assertIn("n3:8300 is a member.", said)

    def test_gives_up_on_one_that_does_not_catch_up(self) -> None:
        """It says how to go on."""
        self.n1.admissions = [Admission(False, 7)] * 30 * (MOST_IN_VAIN + 2)

        status, said, progress = self.add()

        self.assertEqual((status, said), (Exit.NO, ""))
        self.assertIn("does not catch up", progress)

    def test_refused_and_forced(self) -> None:
        """Whoever is not to be a member becomes one by force."""
        self.n1.script = [NotAdmitted("nobody answers as a peer at n3:8300")]
        status, _, why = self.add()
        self.assertEqual(status, Exit.REFUSED)
        self.assertIn("nobody answers as a peer at n3:8300", why)
        self.assertIn("force", why)

        self.assertEqual(self.add("--force")[0], Exit.OK)
        self.assertIn("n3:8300", self.n1.members)

    def test_json(self) -> None:
        """Machines are told as before."""
        self.assertEqual(self.add("--json")[1].strip(), "true")
