"""Processor time is shared out among the pieces of the program."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.account import costs
from benchmarks.members.account import OTHER, piece, shares

CORE = ("/somewhere/txraft/core/leader.py", 1, "flush")
WIRE = ("/somewhere/txraft/wire/entries.py", 1, "encode_entry")
PACK = ("~", 0, "<method 'pack'>")


class Shares(SynchronousTestCase):
    """Seconds of functions, as a profile has them, by piece."""

    def test_piece_by_path(self) -> None:
        """The first part of a path that fits; Deferreds are not the reactor."""
        self.assertEqual(piece(CORE), "consensus")
        self.assertEqual(piece(("/x/twisted/internet/defer.py", 1, "f")), "Deferreds")
        self.assertEqual(
            piece(("/x/twisted/internet/tcp.py", 1, "f")), "reactor and sockets"
        )
        self.assertEqual(piece(("/x/json/decoder.py", 1, "f")), OTHER)

    def test_shares_of_what_is_built_in(self) -> None:
        """It counts for its callers, each with its part."""
        stats = {
            CORE: (1, 1, 2.0, 9.0, {}),
            PACK: (5, 5, 4.0, 4.0, {WIRE: (3, 3, 3.0, 3.0), CORE: (2, 2, 1.0, 1.0)}),
        }

        self.assertEqual(shares(stats), {"consensus": 3.0, "wire format": 3.0})

    def test_costs_add_up_to_what_was_used(self) -> None:
        """The profile gives shares; the amounts are those without it."""
        before = {"reactor": 1.0, "process": 10.0}
        after = {"reactor": 1.5, "process": 11.0}

        found = costs(before, after, {"a": 3.0, "b": 1.0}, answered=1000.0)

        self.assertEqual(
            found, {"a": 375.0, "b": 125.0, "writer and other threads": 500.0}
        )
