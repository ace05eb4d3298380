"""The claims of one node: what it must hold, checked after each of its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txraft.core.entry import Entry
from txraft.core.invariants import Seen, check_server
from txraft.core.leader import Leader
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import HardState
from txraft.node.startup import read_hard_state
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import SimulatedDisk, Survival

if TYPE_CHECKING:
    from txraft.testing.fullstack.node import SimulatedNode


class Claims:
    """Checks *node*, and remembers what the last check saw.

    Every check raises AssertionError.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._simulation = node.machine.simulation
        self._address = node.machine.address
        self._data = node.machine.data
        self._seen: Seen | None = None
        self._checked: object = None
        self._own_copy = 0
        self._durable_term = 0
        self._stored: set[tuple[int, int]] = set()
        self.leads = False

    # After every event ----------------------------------------------------------

    def check(self) -> None:
        """Check this node and the history of the cluster, if anything has changed."""
        consensus = self._node.consensus
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
        # For speed: most events change nothing that is checked below. What a leader
        # knows of its followers is not in the key, so a leader is always checked.
        if not consensus.is_leader and key == self._checked:
            return
        self._checked = key
        self._seen = check_server(consensus, self._seen)
        self._simulation.oracles.observe(consensus)
        self._check_own_copy(consensus.role)
        if self.leads != consensus.is_leader:
            self.leads = consensus.is_leader
            self._simulation.fault_schedule.role_changed(self._node)

    def _check_own_copy(self, role: object) -> None:
        """Assert that a leader counts its own entries only when they are stored.

        Its next write may already be under way.
        """
        if not isinstance(role, Leader) or role.own_match <= self._own_copy:
            return
        self._own_copy = role.own_match
        node = self._node
        assert self._own_copy <= max(node.log.last_index(), self._covered()), (
            f"{self._address} counts a copy of its own that is not stored"
        )

    def stored(self, previous: int | None, entries: Sequence[Entry]) -> None:
        """Assert that entries that the log calls stored are durable and match others.

        *previous* is the term of the entry before them.
        Source: Raft dissertation, figure 3.2, Log Matching.
        """
        node = self._node
        assert node.machine.broken or node.disk.is_synced(self._data / "log"), (
            f"{self._address} takes entries for stored that are not durable"
        )
        node.machine.has_entries = True
        self._stored.update((entry.index, entry.term) for entry in entries)
        self._own_copy = min(self._own_copy, entries[0].index - 1)
        self._simulation.oracles.check_entries(previous, entries)

    # What leaves ----------------------------------------------------------------

    def asks(self, target: str, request: AnyRequest) -> None:
        """Check a request before it leaves."""
        self._simulation.note(self._node.machine, "asks", target, request)
        if isinstance(request, RequestVoteRequest):
            self._check_vote(request.term, self._address)

    def answers(self, request: AnyRequest, response: AnyResponse) -> None:
        """Check an answer before it leaves."""
        self._simulation.note(self._node.machine, "answers", request, response)
        self._simulation.fault_schedule.answered(self._node)
        match request, response:
            case RequestVoteRequest(), RequestVoteResponse(granted=True):
                self._check_vote(request.term, request.candidate)
                self._simulation.fault_schedule.voted(self._node)
            case AppendEntriesRequest(), AppendEntriesResponse(success=True):
                self._check_term(response.term)
                if request.entries:
                    self._check_stored(request.entries[-1])
            case InstallSnapshotRequest(), InstallSnapshotResponse(success=True):
                self._check_installed(request.last_log_index)

    def _durable(self) -> SimulatedDisk:
        # `Survival` keeps nothing that is not synced: the strictest power failure.
        return self._node.disk.after_power_failure(Survival())

    def _durable_state(self) -> HardState:
        path = self._data / "state"
        return read_hard_state(FileStableStore(path, self._address, self._durable()))

    def _check_term(self, term: int) -> None:
        """Assert that the term of a success answer is durable."""
        # Terms only grow, so a disk is read again only for a higher one: it is slow.
        if term > self._durable_term:
            store = FileStableStore(
                self._data / "state", self._address, self._durable()
            )
            self._durable_term = read_hard_state(store).term
        assert term <= self._durable_term, f"{self._address}: success before its term"

    def _check_vote(self, term: int, candidate: str) -> None:
        """Assert that a vote that leaves is durable, and the only one in its term."""
        state = self._durable_state()
        assert state.term >= term, f"{self._address} votes before it is durable"
        assert state.term > term or state.voted_for == candidate, (
            f"{self._address} votes for {candidate} before that is durable"
        )
        self._simulation.one_vote(self._address, term, candidate)

    def _check_stored(self, last: Entry) -> None:
        """Assert that the last entry that a success answer promises is or was durable.

        It may be replaced already: the write that stored it may also have stored
        entries of a newer term over it.
        """
        node = self._node
        if last.index <= self._covered() or (last.index, last.term) in self._stored:
            return
        assert last.index <= node.log.last_index(), (
            f"{self._address} promises entry {last.index} before it is stored"
        )
        assert node.log.get_log(last.index).term == last.term, (
            f"{self._address} promises entry {last.index}, and has another one"
        )

    def _check_installed(self, index: int) -> None:
        """Assert that a snapshot is durable before its answer leaves."""
        found = SnapshotReader(self._data, self._durable()).list()
        newest = max((meta.index for meta in found), default=0)
        assert max(newest, self._node.log.last_index()) >= index, (
            f"{self._address} promises a snapshot before it is durable"
        )

    def _covered(self) -> int:
        consensus = self._node.consensus
        return consensus.snapshot.index if consensus is not None else 0
