"""What one life of a node must hold: its claims, checked after every event of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txraft.core.entry import Entry
from txraft.core.invariants import Seen, check_server
from txraft.core.leader import Leader
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
)
from txraft.core.ready import HardState
from txraft.node.startup import read_hard_state
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import SimulatedDisk, Survival

if TYPE_CHECKING:
    from txraft.testing.fullstack.node import Life


class Claims:
    """The claims of *life*, and what the last check of them saw."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._simulation = life.machine.simulation
        self._address = life.machine.address
        self._data = life.machine.data
        self._seen: Seen | None = None
        self._checked: object = None
        self._own_copy = 0
        self._durable_term = 0
        self._stored: set[tuple[int, int]] = set()
        self.leads = False

    # After every event ----------------------------------------------------------

    def check(self) -> None:
        """Check this node, and the past of the cluster, if anything has changed."""
        consensus = self._life.consensus
        if consensus is None:
            return
        key = (
            consensus.role,
            consensus.term,
            consensus.voted_for,
            consensus.commit_index,
            consensus.log.last_index,
            consensus.log.last_term,
            consensus.snapshot.index,
        )
        if not consensus.is_leader and key == self._checked:
            return
        self._checked = key
        self._seen = check_server(consensus, self._seen)
        self._simulation.oracles.observe(consensus)
        self._check_own_copy(consensus.role)
        if self.leads != consensus.is_leader:
            self.leads = consensus.is_leader
            self._simulation.storm.role_changed(self._life)

    def _check_own_copy(self, role: object) -> None:
        """Assert that a leader counts no copy of its own that is not stored.

        Its next write may be under way by then.
        """
        if not isinstance(role, Leader) or role.own_match <= self._own_copy:
            return
        self._own_copy = role.own_match
        life = self._life
        assert self._own_copy <= max(life.log.last_index(), self._covered()), (
            f"{self._address} counts a copy of its own that is not stored"
        )

    def stored(self, previous: int | None, entries: Sequence[Entry]) -> None:
        """Assert Log Matching of what was stored behind an entry of term *previous*.

        And that it is durable, as all else in the log.
        """
        life = self._life
        assert life.machine.broken or life.disk.is_synced(self._data / "log"), (
            f"{self._address} takes entries for stored that are not durable"
        )
        life.machine.has_entries = True
        self._stored.update((entry.index, entry.term) for entry in entries)
        self._own_copy = min(self._own_copy, entries[0].index - 1)
        self._simulation.oracles.check_entries(previous, entries)

    # What leaves ----------------------------------------------------------------

    def asks(self, target: str, request: Request) -> None:
        """Look at a request on its way out."""
        self._simulation.note(self._life.machine, "asks", target, request)
        if isinstance(request, RequestVoteRequest):
            self._check_vote(request.term, self._address)

    def answers(self, request: Request, response: Response) -> None:
        """Look at an answer on its way out."""
        self._simulation.note(self._life.machine, "answers", request, response)
        self._simulation.storm.answered(self._life)
        match request, response:
            case RequestVoteRequest(), RequestVoteResponse(granted=True):
                self._check_vote(request.term, request.candidate)
                self._simulation.storm.voted(self._life)
            case AppendEntriesRequest(), AppendEntriesResponse(success=True):
                self._check_term(response.term)
                if request.entries:
                    self._check_stored(request.entries[-1])
            case InstallSnapshotRequest(), InstallSnapshotResponse(success=True):
                self._check_installed(request.last_log_index)

    def _durable(self) -> SimulatedDisk:
        return self._life.disk.after_power_failure(Survival())

    def _durable_state(self) -> HardState:
        path = self._data / "state"
        return read_hard_state(FileStableStore(path, self._address, self._durable()))

    def _check_term(self, term: int) -> None:
        """Assert that a success answer leaves behind its term, at its first chance."""
        if term > self._durable_term:
            store = FileStableStore(
                self._data / "state", self._address, self._durable()
            )
            self._durable_term = read_hard_state(store).term
        assert term <= self._durable_term, f"{self._address}: success before its term"

    def _check_vote(self, term: int, candidate: str) -> None:
        """Assert that a vote that leaves is durable, and the only one of its term."""
        state = self._durable_state()
        assert state.term >= term, f"{self._address} votes before it is durable"
        assert state.term > term or state.voted_for == candidate, (
            f"{self._address} votes for {candidate} before that is durable"
        )
        self._simulation.one_vote(self._address, term, candidate)

    def _check_stored(self, last: Entry) -> None:
        """Assert that the entries that a success answer promises are durable.

        Or that they were: what was stored may have been replaced, at a newer term,
        by the same piece of work on the disk.
        """
        life = self._life
        if last.index <= self._covered() or (last.index, last.term) in self._stored:
            return
        assert last.index <= life.log.last_index(), (
            f"{self._address} promises entry {last.index} before it is stored"
        )
        assert life.log.get_log(last.index).term == last.term, (
            f"{self._address} promises entry {last.index}, and has another one"
        )

    def _check_installed(self, index: int) -> None:
        """Assert that the snapshot that an answer promises is durable."""
        found = SnapshotReader(self._data, self._durable()).list()
        newest = max((meta.index for meta in found), default=0)
        assert max(newest, self._life.log.last_index()) >= index, (
            f"{self._address} promises a snapshot before it is durable"
        )

    def _covered(self) -> int:
        consensus = self._life.consensus
        return consensus.snapshot.index if consensus is not None else 0
