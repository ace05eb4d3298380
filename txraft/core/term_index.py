"""The log as consensus sees it: the term of each index, and nothing else.

Runs of equal terms are kept, as terms never fall along the log. So a look-up is a
bisect, and memory grows with elections, not with entries. The prefix up to `base_index`
is compacted away; of it only the last term is known.
"""

from __future__ import annotations

from bisect import bisect_right


class TermIndex:
    """The terms of the entries after (*base_index*, *base_term*).

    *runs* are (first index, term) with rising indexes and terms; *last_index* is
    the newest entry, or *base_index* when there is none.
    """

    __slots__ = ("_firsts", "_terms", "base_index", "base_term", "last_index")

    def __init__(
        self,
        runs: list[tuple[int, int]] | None = None,
        last_index: int = 0,
        base_index: int = 0,
        base_term: int = 0,
    ) -> None:
        self._firsts = [first for first, _ in runs or []]
        self._terms = [term for _, term in runs or []]
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = max(last_index, base_index)

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The runs, as (first index, term)."""
        return list(zip(self._firsts, self._terms, strict=True))

    @property
    def first_index(self) -> int:
        """The oldest index that an entry has or would have."""
        return self.base_index + 1

    @property
    def last_term(self) -> int:
        """The term of the newest entry, or of the base."""
        return self._terms[-1] if self._terms else self.base_term

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at *index*, None if it is not known."""
        if index > self.last_index or index < self.base_index:
            return None
        if index == self.base_index:
            return self.base_term
        return self._terms[bisect_right(self._firsts, index) - 1]

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Tell whether a log with that end is at least as complete as this one.

        Source: Raft dissertation §3.6.1.
        """
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, term: int, count: int = 1) -> None:
        """Add *count* entries of *term* at the end."""
        if not self._terms or self._terms[-1] != term:
            assert term >= self.last_term, "terms never fall along the log"
            self._firsts.append(self.last_index + 1)
            self._terms.append(term)
        self.last_index += count

    def truncate_from(self, index: int) -> None:
        """Forget the entry at *index* and all after it."""
        assert index > self.base_index, "what is compacted is committed"
        # A run that begins before *index* stays, and ends earlier: its end is not kept.
        while self._firsts and self._firsts[-1] >= index:
            self._firsts.pop()
            self._terms.pop()
        self.last_index = min(self.last_index, index - 1)

    def compact_to(self, index: int) -> None:
        """Forget the terms of entries up to *index*, which must be in the log."""
        term = self.term_at(index)
        if index <= self.base_index:
            return
        assert term is not None, "compaction past the end of the log"
        keep = bisect_right(self._firsts, index) - 1
        del self._firsts[:keep], self._terms[:keep]
        # What is left of the run that *index* was in; perhaps nothing.
        self._firsts[0] = index + 1
        if self.last_index == index:
            self._firsts.clear()
            self._terms.clear()
        elif len(self._firsts) > 1 and self._firsts[1] == index + 1:
            del self._firsts[0], self._terms[0]
        self.base_index, self.base_term = index, term

    def restart_at(self, index: int, term: int) -> bool:
        """Take a snapshot that ends at (*index*, *term*) for the prefix.

        Entries after it stay only if the log holds exactly that entry.
        Returns: whether they stay.
        Source: Raft dissertation §5.3, figure 5.3.
        """
        # By the Log Matching Property what follows this entry may be this leader's. It
        # is kept: some of it may be acknowledged, and count as a copy elsewhere.
        if self.term_at(index) == term:
            self.compact_to(index)
            return True
        self._firsts.clear()
        self._terms.clear()
        self.base_index = self.last_index = index
        self.base_term = term
        return False
