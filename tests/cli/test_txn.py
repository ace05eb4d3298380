"""`txraft txn`, against the HTTP API itself."""

from __future__ import annotations

import json

from tests.support.cli_commands import CommandCase


class Transactions(CommandCase):
    """`txraft txn`."""

    def test_committed_and_rolled_back(self) -> None:
        """Results with status 0, errors with status 1."""
        good = '[{"KV": {"Verb": "set", "Key": "a", "Value": "MQ=="}}]'
        bad = '[{"KV": {"Verb": "check-not-exists", "Key": "a"}}]'

        done = json.loads(self.passed("txn", good))
        refused = self.txraft("txn", "-", stdin=bad.encode())

        self.assertEqual(done["Results"][0]["KV"]["Key"], "a")
        self.assertEqual(refused.exit_code, 1)
        self.assertEqual(json.loads(refused.stdout)["Errors"][0]["OpIndex"], 0)

    def test_no_json(self) -> None:
        """What is not JSON is not sent."""
        self.assertEqual(self.txraft("txn", "nonsense").exit_code, 2)
