"""The log as runs of terms."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import log_of
from txraft.core.term_index import TermIndex


class Reference:
    """The same log with every term written out."""

    def __init__(self) -> None:
        self.base = 0
        self.terms = [0]

    def term_at(self, index: int) -> int | None:
        position = index - self.base
        return self.terms[position] if 0 <= position < len(self.terms) else None

    @property
    def last(self) -> int:
        return self.base + len(self.terms) - 1


class Runs(SynchronousTestCase):
    """`Log` in its own terms."""

    def test_append_keeps_one_run_per_term(self) -> None:
        """Memory grows with elections, not with entries."""
        log = log_of(1, 1, 1, 4, 4, 5)

        self.assertEqual(log.runs, [(1, 1), (4, 4), (6, 5)])
        self.assertEqual((log.last_index, log.last_term), (6, 5))

    def test_term_at_knows_base_and_entries_only(self) -> None:
        """Of the compacted prefix only the last term is known."""
        log = log_of(3, 4, base=(5, 2))

        self.assertEqual([log.term_at(i) for i in range(4, 9)], [None, 2, 3, 4, None])

    def test_truncate_in_the_middle_of_a_run(self) -> None:
        """The entry at the index goes too."""
        log = log_of(1, 1, 2, 2, 3)

        log.truncate_from(4)

        self.assertEqual((log.runs, log.last_index), ([(1, 1), (3, 2)], 3))

    def test_truncate_to_the_base_leaves_its_term(self) -> None:
        """An emptied log still knows the term of what is compacted."""
        log = log_of(3, base=(5, 2))

        log.truncate_from(6)

        self.assertEqual((log.last_index, log.last_term), (5, 2))

    def test_compact_to_the_end(self) -> None:
        """A log that is compacted as a whole ends at its base."""
        log = log_of(1, 1, 2)

        log.compact_to(3)

        self.assertEqual((log.runs, log.base_index, log.base_term), ([], 3, 2))
        self.assertEqual((log.last_index, log.last_term), (3, 2))

    def test_compact_backwards_changes_nothing(self) -> None:
        """What is compacted does not come back."""
        log = log_of(3, base=(5, 2))

        log.compact_to(2)

        self.assertEqual((log.base_index, log.runs), (5, [(6, 3)]))

    def test_all_operations_agree_with_a_written_out_log(self) -> None:
        """A thousand random operations leave what they leave on a plain list."""
        random = Random(1)
        log, reference = TermIndex(), Reference()

        for _ in range(1000):
            draw = random.random()
            if draw < 0.6:
                term, count = log.last_term + random.choice((0, 0, 1)), 1
                log.append(term, count)
                reference.terms.extend([term] * count)
            elif draw < 0.8 and log.last_index > log.base_index:
                index = random.randint(log.base_index + 1, log.last_index)
                log.truncate_from(index)
                del reference.terms[index - reference.base :]
            else:
                index = random.randint(log.base_index, log.last_index)
                log.compact_to(index)
                del reference.terms[: index - reference.base]
                reference.base = index
            indexes = range(max(0, log.base_index - 1), log.last_index + 2)
            self.assertEqual(
                [log.term_at(i) for i in indexes],
                [reference.term_at(i) for i in indexes],
            )
            self.assertEqual(log.last_index, reference.last)
            terms = [term for _, term in log.runs]
            self.assertEqual(terms, sorted(set(terms)))


class UpToDate(SynchronousTestCase):
    """`Log.is_up_to_date`: who may be voted for."""

    def test_is_up_to_date_compares_term_before_index(self) -> None:
        """The later last term wins; with equal terms, the longer log.

        Source: Raft dissertation §3.6.1.
        """
        log = log_of(1, 2, 2)
        cases = {
            (3, 2): True,
            (4, 2): True,
            (2, 2): False,
            (1, 3): True,
            (9, 1): False,
            (3, 1): False,
        }

        judged = {last: log.is_up_to_date(*last) for last in cases}

        self.assertEqual(judged, cases)


class Restart(SynchronousTestCase):
    """`Log.restart_at`: a snapshot takes the place of a prefix."""

    def test_restart_keeps_what_follows_the_same_entry(self) -> None:
        """Entries after a snapshot stay if the log holds its last entry.

        Source: Raft paper, figure 13, rule 6.
        """
        log = log_of(1, 1, 2, 2)

        self.assertTrue(log.restart_at(3, 2))
        self.assertEqual((log.base_index, log.runs), (3, [(4, 2)]))

    def test_restart_drops_a_log_that_disagrees(self) -> None:
        """Otherwise the whole log goes, also what lies behind the snapshot.

        Source: Raft paper, figure 13, rule 7.
        """
        log = log_of(1, 1, 1, 1)

        self.assertFalse(log.restart_at(3, 2))
        self.assertEqual((log.base_index, log.last_index, log.last_term), (3, 3, 2))

    def test_restart_past_the_end(self) -> None:
        """A snapshot ahead of the log replaces it."""
        log = log_of(1)

        self.assertFalse(log.restart_at(9, 4))
        self.assertEqual((log.runs, log.last_index, log.last_term), ([], 9, 4))
