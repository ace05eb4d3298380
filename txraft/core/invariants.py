"""The invariants of Raft: figure 3.2 of the dissertation as assertions.

`check_server` and `check_ready` look at one server, `History` at a whole cluster and
all of its past. They read and remember; they change nothing.

Source: Raft dissertation, figure 3.2, §3.6.3, §4.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from txraft.core.consensus import Consensus
from txraft.core.leader import Leader
from txraft.core.messages import (
    AppendEntriesResponse,
    InstallSnapshotResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import Ready
from txraft.core.term_index import TermIndex


@dataclass(frozen=True, slots=True)
class Seen:
    """One server as a check left it, for the next check to compare with."""

    term: int
    voted_for: str | None
    commit_index: int
    last_index: int
    last_term: int
    leads: bool
    matches: dict[tuple[str, int], int] = field(default_factory=dict)


def check_server(server: Consensus, before: Seen | None = None) -> Seen:
    """Assert what one server promises, alone and since *before*, without a restart."""
    log = server.log
    assert log.base_index <= server.commit_index, "what is compacted is committed"
    assert server.commit_index <= log.last_index, "what is committed is in the log"
    assert log.base_index <= server.snapshot.index, "a snapshot covers the compacted"
    assert server.snapshot.index <= server.commit_index, "snapshots hold the committed"
    assert server.configurations.latest_index <= log.last_index, "no phantom membership"
    firsts, terms = [run[0] for run in log.runs], [run[1] for run in log.runs]
    assert firsts == sorted(set(firsts)), "runs are in log order"
    assert terms == sorted(set(terms)), "terms never fall along the log"
    assert log.last_term <= server.term, "no entry is of a term to come"
    matches = _check_leader(server) if isinstance(server.role, Leader) else {}
    seen = Seen(
        term=server.term,
        voted_for=server.voted_for,
        commit_index=server.commit_index,
        last_index=log.last_index,
        last_term=log.last_term,
        leads=server.is_leader,
        matches=matches,
    )
    if before is not None:
        _check_step(server, before, seen)
    return seen


def _check_leader(server: Consensus) -> dict[tuple[str, int], int]:
    """Assert what a leader knows of others and of its own changes."""
    role, log = server.role, server.log
    assert isinstance(role, Leader)
    assert role.own_match <= log.last_index, "a leader has what it counts"
    for address, progress in role.followers.items():
        assert progress.next > progress.match, f"next > match of {address}"
        assert progress.next <= log.last_index + 1, f"{address} gets what there is"
        assert progress.match <= log.last_index, f"{address} has no more than that"
        limit = server.options.max_inflight_requests
        assert 0 <= progress.inflight <= limit, f"the window to {address}"
    own = [
        index
        for index in server.configurations.indexes
        if index > max(server.commit_index, role.first_index)
    ]
    assert len(own) <= 1, "one membership change at a time"
    assert not own or server.commit_index >= role.first_index, (
        "no membership change before an entry of the leader's own term is committed"
    )
    return {(a, p.stream): p.match for a, p in role.followers.items()}


def _check_step(server: Consensus, before: Seen, now: Seen) -> None:
    """Assert what may happen between two checks of a server that did not crash."""
    assert now.term >= before.term, "a term never falls"
    assert now.commit_index >= before.commit_index, "a commit index never falls"
    if now.term > before.term:
        return
    assert before.voted_for in (None, now.voted_for), "one vote a term"
    if before.leads and now.leads:
        assert now.last_index >= before.last_index, "a leader never truncates"
        kept = server.log.term_at(before.last_index)
        assert kept in (None, before.last_term), "a leader never overwrites"
        for key, match in before.matches.items():
            assert now.matches.get(key, match) >= match, (
                f"match of {key[0]} never falls"
            )


def check_ready(server: Consensus, ready: Ready) -> None:
    """Assert that nothing in `send` promises what is not durable.

    To be called before the write of *ready* is reported synced.
    """
    for _, message in ready.send:
        match message:
            case RequestVoteRequest():
                raise AssertionError("a vote request waits for the candidate's vote")
            case RequestVoteResponse(granted=True):
                raise AssertionError("a vote waits until it is durable")
            case InstallSnapshotResponse(success=True):
                raise AssertionError("success waits until what it says is durable")
            case AppendEntriesResponse(success=True):
                durable = server.writes.durable_state
                assert durable.term >= message.term, "success waits for its term"
            case _:
                pass


def check_log_matching(one: TermIndex, other: TermIndex) -> None:
    """Assert that logs which agree on an entry agree on all before it.

    Source: Raft dissertation, figure 3.2, Log Matching.
    """
    low = max(one.base_index, other.base_index)
    high = min(one.last_index, other.last_index)
    changes = [first for log in (one, other) for first, _ in log.runs]
    points = sorted([low, *(first for first in changes if low < first)])
    agreements = [
        one.term_at(index) == other.term_at(index) for index in points if index <= high
    ]
    for earlier, later in pairwise(agreements):
        assert earlier or not later, "logs that agree on an entry agree on all before"


class History:
    """All that a cluster has committed, and who led, since its beginning.

    *max_committed* is the highest index that any server has known to be committed.
    """

    def __init__(self) -> None:
        self.max_committed = 0
        self._leaders: dict[int, str] = {}
        self._committed: dict[int, tuple[int, int]] = {}
        self._checked: dict[str, int] = {}

    @property
    def leaderships(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    def observe(self, server: Consensus, others: Iterable[Consensus] = ()) -> None:
        """Take in what *server* knows now, and compare its log with those of *others*.

        Source: Raft dissertation, figure 3.2.
        """
        if server.is_leader:
            self._observe_leader(server)
        self._observe_commit(server)
        for other in others:
            check_log_matching(server.log, other.log)

    def _observe_leader(self, server: Consensus) -> None:
        """Assert Election Safety, and Leader Completeness for a new leader."""
        known = self._leaders.get(server.term)
        assert known in (None, server.address), (
            f"two leaders in term {server.term}: {known} and {server.address}"
        )
        if known is not None:
            return
        self._leaders[server.term] = server.address
        for index, (term, by_term) in self._committed.items():
            if by_term < server.term and index >= server.log.base_index:
                assert server.log.term_at(index) == term, (
                    f"{server.address} leads term {server.term} without the entry "
                    f"{index} of term {term}, committed in term {by_term}"
                )

    def _observe_commit(self, server: Consensus) -> None:
        """Assert State Machine Safety: one entry for each committed index."""
        checked = self._checked.get(server.address, 0)
        first = max(min(checked, server.commit_index) + 1, server.log.base_index, 1)
        for index in range(first, server.commit_index + 1):
            term = server.log.term_at(index)
            assert term is not None, "what is committed is in the log"
            known, _ = self._committed.setdefault(index, (term, server.term))
            assert known == term, (
                f"index {index} is committed as of term {known} and of term {term}"
            )
        self._checked[server.address] = server.commit_index
        self.max_committed = max(self.max_committed, server.commit_index)
