"""Commands that ask a cluster: their exit statuses, addresses and help."""

from __future__ import annotations

from tests.support.cli_commands import CommandCase
from tests.support.http_network import Network
from txraft.errors import LeadershipLost


class Statuses(CommandCase):
    """How a command ends when the cluster does not do what it should."""

    def test_nobody_there(self) -> None:
        """Status 3: nothing was changed, and it may be tried again."""
        self.network.refusing = {"n1:8500", "n2:8500"}

        result = self.txraft("kv", "put", "a", "x")

        self.assertEqual(result.exit_code, 3)
        self.assertIn("nothing was changed", result.stderr)

    def test_outcome_unknown(self) -> None:
        """Status 4: it may be applied."""
        self.n1.script = [LeadershipLost()]

        result = self.txraft("kv", "put", "a", "x")

        self.assertEqual(result.exit_code, 4)
        self.assertIn("outcome is unknown", result.stderr)

    def test_refused(self) -> None:
        """Status 5, and the node's own words."""
        result = self.txraft("kv", "put", "k" * 2000, "x")

        self.assertEqual(result.exit_code, 5)

    def test_wrong_address(self) -> None:
        """Status 2: an address that cannot be one is told before anything is sent."""
        result = self.txraft("kv", "get", "a", "-a", "ftp://x")

        self.assertEqual(result.exit_code, 2)
        self.assertIn("no URL of a node", result.stderr)

    def test_help(self) -> None:
        """Every command explains itself, and nothing is asked for that."""
        self.network = Network()
        for command in (["--help"], ["kv", "put", "--help"], ["lock", "-h"]):
            self.assertIn("Usage:", self.passed(*command))
        self.assertIn("Exit status", self.passed("--help"))
