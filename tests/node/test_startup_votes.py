"""Votes that a store without atomic writes may leave behind."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.ready import HardState
from txraft.node.startup import read_hard_state
from txraft.node.writer import CURRENT_TERM, LAST_VOTE_CANDIDATE, LAST_VOTE_TERM
from txraft.storage.memory import InmemStore


class Votes(SynchronousTestCase):
    """What is read back of a term and a vote."""

    def setUp(self) -> None:
        self.store = InmemStore()
        self.store.set_uint64(CURRENT_TERM, 5)
        self.store.set(LAST_VOTE_CANDIDATE, b"a")

    def test_vote_of_the_term_counts(self) -> None:
        """A vote of the current term binds."""
        self.store.set_uint64(LAST_VOTE_TERM, 5)

        self.assertEqual(read_hard_state(self.store), HardState(5, "a"))

    def test_vote_of_an_older_term_is_none(self) -> None:
        """A crash between the writes of term and vote leaves the vote of before."""
        self.store.set_uint64(LAST_VOTE_TERM, 4)

        self.assertEqual(read_hard_state(self.store), HardState(5, None))
