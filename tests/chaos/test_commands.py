"""The command checks that a run can begin before it begins."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.commands import command, missing


class Missing(SynchronousTestCase):
    """The packages that are to be installed."""

    def test_missing(self) -> None:
        """Every tool that is not found is named by its package."""
        empty = self.mktemp()
        os.mkdir(empty)
        self.patch(os, "environ", os.environ | {"PATH": empty})

        self.assertEqual(missing(), ["iproute2", "nftables", "strace"])

    def test_command_that_fails(self) -> None:
        """A command that fails says what it has written."""
        error = self.assertRaises(AssertionError, command, "ls", "/no/such/place")

        self.assertIn("/no/such/place", str(error))
