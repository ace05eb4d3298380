"""One server of a simulated cluster: its disk, its state machine, its consensus.

The disk takes the parts of a write one by one; of those that are under way when the
machine crashes some have arrived, always the first ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry
from txraft.core.invariants import Seen, check_ready, check_server
from txraft.core.log import Log
from txraft.core.messages import AppendEntriesRequest, InstallSnapshotRequest, Request
from txraft.core.ready import (
    HardState,
    Heartbeat,
    Install,
    OutgoingRequest,
    Ready,
    Replicate,
    SendSnapshot,
    SnapshotMark,
)

if TYPE_CHECKING:
    from tests.core.cluster import Cluster


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    state: HardState = field(default_factory=HardState)
    entries: dict[int, Entry] = field(default_factory=dict)
    base: tuple[int, int] = (0, 0)
    mark: SnapshotMark = field(default_factory=SnapshotMark)
    digest: int = 0

    @property
    def last_index(self) -> int:
        """The index of the newest entry, or of the base."""
        return max(self.entries, default=self.base[0])

    def drop_from(self, index: int) -> None:
        """Delete the entry at *index* and all after it."""
        self.entries = {i: e for i, e in self.entries.items() if i < index}

    def compact_to(self, index: int, term: int) -> None:
        """Delete the entries up to *index*."""
        if index > self.base[0]:
            self.entries = {i: e for i, e in self.entries.items() if i > index}
            self.base = (index, term)

    def recover(self) -> None:
        """Drop a log that ends before the snapshot or disagrees with it."""
        mark = self.mark
        entry = self.entries.get(mark.index)
        term = self.base[1] if mark.index == self.base[0] else entry and entry.term
        if mark.index > self.base[0] and term != mark.term:
            self.entries = {}
            self.base = (mark.index, mark.term)

    def log(self) -> Log:
        """Return the log as consensus sees it."""
        runs: list[tuple[int, int]] = []
        for index in sorted(self.entries):
            term = self.entries[index].term
            if not runs or runs[-1][1] != term:
                runs.append((index, term))
        return Log(runs, self.last_index, *self.base)

    def configurations(self, bootstrap: Configuration) -> ConfigurationHistory:
        """Return the memberships that snapshot and log assert."""
        if self.mark.index:
            history = ConfigurationHistory(
                self.mark.configuration_index, self.mark.configuration
            )
        else:
            history = ConfigurationHistory(0, bootstrap)
        for index in sorted(self.entries):
            made = self.entries[index].configuration
            if made is not None and index > history.latest_index:
                history.append(index, made)
        return history


class Machine:
    """One server: its disk, and its consensus while it runs."""

    def __init__(self, cluster: Cluster, address: str, bootstrap: Configuration):
        self.cluster = cluster
        self.address = address
        self.bootstrap = bootstrap
        self.disk = Disk()
        self.life = 0
        self.running = False
        self.start()

    def start(self) -> None:
        """Recover from disk and run."""
        cluster, disk = self.cluster, self.disk
        disk.recover()
        self.life += 1
        self.running = True
        self.parts: deque[tuple[int, Callable[[], None]]] = deque()
        self.held: deque[tuple[int, object, object]] = deque()
        self.synced_number = 0
        self.stalled_until = 0
        self.memory = dict(disk.entries)
        self.applied, self.digest = disk.mark.index, disk.digest
        self.consensus = Consensus(
            self.address,
            Random(cluster.random.getrandbits(32)),
            cluster.options,
            disk.state,
            disk.log(),
            disk.configurations(self.bootstrap),
            disk.mark,
            fit=self._fit,
        )
        self.consensus.cluster_proposals = {
            i: e.cluster for i, e in self.memory.items() if e.cluster is not None
        }
        self.consensus.now = cluster.random.randrange(1, 50)
        self.seen: Seen | None = None

    def _fit(self, first: int, last: int) -> int:
        return self.cluster.random.randint(first, last)

    def crash(self) -> None:
        """Stop at once; of the writes under way a part may have reached the disk."""
        survivors = self.cluster.random.randint(0, len(self.parts))
        if self.cluster.random.random() < 0.5:
            survivors = 0
        for _ in range(survivors):
            self.parts.popleft()[1]()
        self.running = False
        self.life += 1
        self.seen = None

    # One turn -----------------------------------------------------------------

    def turn(self, function: Callable[..., object], *arguments: object) -> None:
        """Hand one input to consensus and act on what follows."""
        if not self.running:
            return
        function(*arguments)
        if self.cluster.random.random() < self.cluster.batching:
            return
        self.flush()

    def flush(self) -> None:
        """Act on what follows from the inputs so far."""
        consensus, cluster = self.consensus, self.cluster
        changes = consensus.log_changes
        if changes.reset_log is not None:
            reset = changes.reset_log
            kept = {i: e for i, e in self.memory.items() if i > reset.index}
            self.memory = kept if reset.keep_suffix else {}
        if changes.truncate_from is not None:
            cut = changes.truncate_from
            self.memory = {i: e for i, e in self.memory.items() if i < cut}
        for entry in changes.append:
            self.memory[entry.index] = entry
            cluster.check_entry(entry)
        last = consensus.log.last_index
        consensus.resident_from = max(1, last + 1 - cluster.resident_entries)
        ready = consensus.ready()
        check_ready(consensus, ready)
        self.seen = check_server(consensus, self.seen)
        others = [m.consensus for m in cluster.running if m is not self]
        cluster.history.observe(consensus, others)
        self._act(ready)

    def _act(self, ready: Ready) -> None:
        for to, message in ready.send:
            self._dispatch(to, message)
        if ready.has_write:
            self._write(ready)
        for to, message in ready.after_sync:
            if ready.write_number <= self.synced_number:
                self._dispatch(to, message)
            else:
                self.held.append((ready.write_number, to, message))
        self._apply(ready.commit_index)
        for token, index in ready.verified:
            self.cluster.check_read(token, index)
        if ready.install is not None:
            delay = self.cluster.random.randint(1, 8)
            self.cluster.later(delay, self, self._install, ready.install)
        self._snapshot()

    def _dispatch(self, to: object, message: object) -> None:
        if isinstance(to, str):
            self.cluster.send(self, to, message)
        else:
            self.cluster.answer(self, to, message)

    # Disk ---------------------------------------------------------------------

    def _write(self, ready: Ready) -> None:
        number, disk = ready.write_number, self.disk
        if ready.reset_log is not None:
            index = ready.reset_log.index
            term = self.consensus.log.term_at(index) or 0
            if not ready.reset_log.keep_suffix:
                self.parts.append((number, lambda: disk.drop_from(0)))
            self.parts.append((number, lambda: disk.compact_to(index, term)))
        if ready.hard_state is not None:
            state = ready.hard_state
            self.parts.append((number, lambda: setattr(disk, "state", state)))
        if ready.truncate_from is not None:
            cut = ready.truncate_from
            self.parts.append((number, lambda: disk.drop_from(cut)))
        for entry in ready.append:
            self.parts.append((number, lambda e=entry: self._store(e)))
        random = self.cluster.random
        delay = random.choice(self.cluster.disk_delays)
        self.stalled_until = max(self.stalled_until, self.cluster.now + delay)
        self.cluster.at(self.stalled_until, self, self._synced, number)

    def _store(self, entry: Entry) -> None:
        disk = self.disk
        if entry.index > disk.base[0]:
            assert entry.index == disk.last_index + 1, "the log on disk has no gap"
            disk.entries[entry.index] = entry

    def _synced(self, number: int) -> None:
        while self.parts and self.parts[0][0] <= number:
            self.parts.popleft()[1]()
        self.synced_number = number
        while self.held and self.held[0][0] <= number:
            _, to, message = self.held.popleft()
            self._dispatch(to, message)
        self.turn(self.consensus.synced, number)

    # State machine and snapshots ----------------------------------------------

    def _apply(self, commit: int) -> None:
        while self.applied < commit:
            self.applied += 1
            entry = self.memory[self.applied]
            term = self.consensus.log.term_at(self.applied)
            assert entry.term == term, "what is applied is what was agreed on"
            self.digest = crc32(b"%d %d" % (entry.term, entry.index), self.digest)
            self.digest = crc32(entry.data or b"", self.digest)
            self.cluster.check_applied(self.applied, self.digest)

    def _snapshot(self) -> None:
        """Take a snapshot of what is applied and synced, and cut the log."""
        cluster, disk, consensus = self.cluster, self.disk, self.consensus
        due = self.applied - disk.mark.index >= cluster.snapshot_threshold
        if not due or disk.last_index < self.applied or consensus.installing:
            return
        entry = disk.entries.get(self.applied)
        if entry is None or entry.term != consensus.log.term_at(self.applied):
            return
        made, configuration = consensus.configurations.at(self.applied)
        mark = SnapshotMark(self.applied, entry.term, configuration, made)
        disk.mark, disk.digest = mark, self.digest
        consensus.snapshotted(mark)
        keep = cluster.random.randint(0, cluster.trailing)
        index = mark.index - keep
        if index > consensus.log.base_index:
            term = consensus.log.term_at(index)
            assert term is not None
            consensus.compacted(index)
            disk.compact_to(index, term)
            self.memory = {i: e for i, e in self.memory.items() if i > index}

    def _install(self, install: Install) -> None:
        request, cluster, disk = install.request, self.cluster, self.disk
        if cluster.random.random() < 0.15:
            self.turn(self.consensus.installed, install, None)
            return
        mark = SnapshotMark(
            request.last_log_index,
            request.last_log_term,
            request.configuration,
            request.configuration_index,
        )
        if mark.index > disk.mark.index:
            disk.mark, disk.digest = mark, cluster.digests[mark.index]
        if mark.index > self.applied:
            self.applied, self.digest = mark.index, cluster.digests[mark.index]
        self.turn(self.consensus.installed, install, mark)

    # Bodies -------------------------------------------------------------------

    def body(self, request: OutgoingRequest) -> tuple[OutgoingRequest, Request]:
        """Return *request* as it is really sent, and as it travels."""
        match request:
            case Heartbeat():
                return request, AppendEntriesRequest(request.term, self.address)
            case Replicate():
                return self._entries(request)
            case SendSnapshot():
                return self._newest_snapshot(request)
            case _:
                return request, request

    def _entries(self, request: Replicate) -> tuple[OutgoingRequest, Request]:
        last = request.last
        if request.may_shorten and last > request.prev_index:
            last = self.cluster.random.randint(request.prev_index + 1, last)
        sent = replace(request, last=last, commit=min(request.commit, last))
        entries = [
            replace(self.memory[index])
            for index in range(request.prev_index + 1, last + 1)
        ]
        return sent, AppendEntriesRequest(
            sent.term,
            self.address,
            sent.prev_index,
            sent.prev_term,
            entries,
            sent.commit,
        )

    def _newest_snapshot(
        self, request: SendSnapshot
    ) -> tuple[OutgoingRequest, Request]:
        mark = self.disk.mark
        assert mark.index >= request.index, "a snapshot covers what is compacted"
        return replace(request, index=mark.index), InstallSnapshotRequest(
            term=request.term,
            leader=self.address,
            last_log_index=mark.index,
            last_log_term=mark.term,
            size=0,
            configuration=mark.configuration,
            configuration_index=mark.configuration_index,
        )
