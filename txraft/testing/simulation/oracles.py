"""The oracles: what must hold in a cluster, checked after every event.

Source: Raft dissertation, figure 3.2; the rules of `Ready`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.invariants import History, Seen, check_ready, check_server
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import Ready

if TYPE_CHECKING:
    from txraft.testing.simulation.simulated_server import SimulatedServer

Position = tuple[int, int]
"""An index and a term: together they identify one entry."""


class Oracles:
    """The history of a cluster, and the checks against it.

    Every check raises AssertionError.
    """

    def __init__(self) -> None:
        self.history = History()
        self._entries: dict[Position, tuple[object, ...]] = {}
        self._previous: dict[Position, int] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._states: dict[int, int] = {0: 0}
        self._identity: bytes | None = None
        self._commands: dict[int, bytes] = {}
        self._levels: dict[int, int] = {}
        self.activations = 0

    # One server -----------------------------------------------------------------

    def check_turn(self, server: SimulatedServer, ready: Ready) -> None:
        """Check a server and its `Ready` before the `Ready` is acted on."""
        consensus = server.consensus
        self._check_appended(server, ready)
        check_ready(consensus, ready)
        key = (
            consensus.role,
            consensus.term,
            consensus.voted_for,
            consensus.commit_index,
            consensus.log.last_index,
            consensus.log.last_term,
            consensus.snapshot.index,
        )
        # For speed: most turns change nothing that is checked below. What a leader
        # knows of its followers is not in the key, so a leader is always checked.
        if not consensus.is_leader and key == server.checked:
            return
        server.checked = key
        before: Seen | None = server.seen
        server.seen = check_server(consensus, before)
        self.observe(consensus)
        self._check_own_copy(server)

    def observe(self, consensus: Consensus) -> None:
        """Check one server against the history of the cluster and its one identity."""
        self.history.observe(consensus)
        if consensus.cluster is not None:
            self._identity = self._identity or consensus.cluster
            assert consensus.cluster == self._identity, "a cluster has one identity"

    def _check_appended(self, server: SimulatedServer, ready: Ready) -> None:
        if ready.append:
            previous = server.consensus.log.term_at(ready.append[0].index - 1)
            assert previous is not None, "the log has no gaps"
            self.check_entries(previous, ready.append)

    def check_entries(self, previous: int | None, entries: Sequence[Entry]) -> None:
        """Assert that entries with equal index and term are equal, as are those before.

        *previous* is the term of the entry before *entries*, None if it is unknown.
        Source: Raft dissertation, figure 3.2, Log Matching.
        """
        for entry in entries:
            position = (entry.index, entry.term)
            said = (entry.type, entry.data, entry.configuration, entry.cluster)
            known = self._entries.setdefault(position, said)
            assert known == said, (
                f"entry {entry.index} of term {entry.term} is not the same everywhere"
            )
            if previous is not None:
                before = self._previous.setdefault(position, previous)
                assert before == previous, (
                    f"entry {entry.index} of term {entry.term} follows entries of "
                    f"terms {before} and {previous}"
                )
            previous = entry.term

    def _check_own_copy(self, server: SimulatedServer) -> None:
        """Assert that a leader counts its own entries only when they are synced."""
        match = getattr(server.consensus.role, "own_match", 0)
        assert match <= server.disk.last_index, "a leader counts what it has synced"

    # Promises -------------------------------------------------------------------

    def check_request(self, server: SimulatedServer, message: object) -> None:
        """Assert that a candidate's own vote is durable before it asks for votes."""
        if isinstance(message, RequestVoteRequest):
            self._check_vote(server, message.term, server.address)

    def check_answer(
        self, server: SimulatedServer, request: object, answer: object
    ) -> None:
        """Assert that what *answer* promises is durable on the disk of *server*."""
        match request, answer:
            case RequestVoteRequest(), RequestVoteResponse(granted=True):
                self._check_vote(server, request.term, request.candidate)
            case AppendEntriesRequest(), AppendEntriesResponse(success=True):
                self._check_stored(server, request, answer)
            case InstallSnapshotRequest(), InstallSnapshotResponse(success=True):
                disk = server.disk
                assert max(disk.mark.index, disk.last_index) >= (
                    request.last_log_index
                ), "a snapshot is durable before it is answered for"

    def _check_vote(self, server: SimulatedServer, term: int, candidate: str) -> None:
        """Assert that a vote is durable, and that it is the only one in its term.

        `_votes` outlives crashes, so a vote that a crash lost and changed is found.
        """
        state = server.disk.state
        assert state.term >= term, f"{server.address} votes before its term is durable"
        assert state.term > term or state.voted_for == candidate, (
            f"{server.address} votes before its vote is durable"
        )
        known = self._votes.setdefault((server.address, term), candidate)
        assert known == candidate, (
            f"{server.address} voted for {known} and {candidate} in term {term}"
        )

    def _check_stored(
        self,
        server: SimulatedServer,
        request: AppendEntriesRequest,
        answer: AppendEntriesResponse,
    ) -> None:
        disk = server.disk
        assert disk.state.term >= answer.term, "success waits for its term"
        if not request.entries:
            return
        last = request.entries[-1]
        covered = last.index <= max(disk.base[0], disk.mark.index)
        assert covered or disk.term_at(last.index) == last.term, (
            f"{server.address} promises entry {last.index} before it is durable"
        )

    # State machines ---------------------------------------------------------------

    def check_applied(self, index: int, digest: int, entry: Entry) -> None:
        """Assert that all state machines have the same state after *index*."""
        known = self._states.setdefault(index, digest)
        assert known == digest, f"state machines differ after {index}"
        if entry.data is not None and entry.type is LogType.COMMAND:
            self._commands[index] = entry.data

    def check_restored(self, index: int, digest: int) -> None:
        """Assert that the state in a snapshot is the one applied at *index*."""
        assert self._states.get(index) == digest, f"no such state at {index}"

    def check_level(self, index: int, level: int) -> None:
        """Assert that all state machines have the same level active after *index*.

        So each command is judged by the same rules, also after a restart or a snapshot.
        """
        known = self._levels.setdefault(index, level)
        assert known == level, f"levels {known} and {level} are active after {index}"

    def check_activated(self, level: int, understood: dict[str, int]) -> None:
        """Assert that all members have *understood* the *level* that is activated.

        Voters and nonvoters: each applies what comes after it.
        """
        self.activations += 1
        behind = [address for address, known in understood.items() if known < level]
        assert not behind, f"level {level} is activated, and {behind} do not know it"

    # Outcomes ---------------------------------------------------------------------

    def check_outcomes(
        self, acknowledged: dict[bytes, int], refused: dict[bytes, int]
    ) -> None:
        """Assert at the end that all outcomes that clients were told are true."""
        places: dict[bytes, int] = {}
        for index, command in self._commands.items():
            assert command not in places, f"{command!r} is committed twice"
            assert command not in refused, f"{command!r} was refused, and committed"
            places[command] = index
        for command, index in acknowledged.items():
            assert places.get(command) == index, (
                f"{command!r} was acknowledged at {index}, and is at "
                f"{places.get(command)}"
            )
