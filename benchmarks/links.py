"""Long links and large clusters, simulated: whole nodes in memory, on a clock.

    python -m benchmarks links [--round-trips 20] [--in-flight 512]

What takes time here is a message one way (half a round trip) and a write to the disk;
processors are infinitely fast, so this is the bound that the protocol and its windows
set: at most `max_append_entries` entries in a request and `max_inflight_requests`
requests to each follower. Beside it, the processor time that all nodes together really
needed for each commit, without sockets and files.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from benchmarks.figures import Spread, short
from benchmarks.options import make_parser, numbers
from benchmarks.report import Report
from benchmarks.rounds import Sample, tell
from benchmarks.systems.txraft import NEVER, TXRAFT_SYSTEMS
from benchmarks.tables import Table
from txraft.config import Config
from txraft.node.pending import ApplyResult
from txraft.testing.cluster import Cluster
from txraft.testing.heap_clock import HeapClock

DISK_SECONDS = 0.0002
VALUE_BYTES = 256
WINDOWS = [(64, 2), (64, 8), (256, 2), (256, 4), (1024, 1), (1024, 2)]
WARM_UP_TRIPS = 5
STEP_SECONDS = 0.001


class Load:
    """A number of commands in flight, each followed by the next."""

    def __init__(self, cluster: Cluster, in_flight: int) -> None:
        self._cluster = cluster
        self._raft = cluster.leader.raft
        self.latencies: list[float] = []
        self.stopped = False
        for _ in range(in_flight):
            self._send()

    def _send(self) -> None:
        began = self._cluster.clock.seconds()
        answer: Deferred[ApplyResult] = self._raft.apply(bytes(VALUE_BYTES))
        answer.addCallback(self._answered, began)
        answer.addErrback(lambda _: None if self.stopped else _)

    def _answered(self, _: object, began: float) -> None:
        self.latencies.append(self._cluster.clock.seconds() - began)
        if not self.stopped:
            self._send()


def simulate(
    size: int, round_trip: float, in_flight: int, window: tuple[int, int], trips: int
) -> Sample:
    """Run one cluster for a number of round trips and count commits."""
    entries, requests = window
    config = Config(
        max_append_entries=entries,
        max_inflight_requests=requests,
        snapshot_interval=NEVER,
    )
    cluster = Cluster(
        size,
        config,
        CountingFSM,
        disk_seconds=DISK_SECONDS,
        latency=round_trip / 2,
        clock=HeapClock(),
    )
    cluster.start()
    load = Load(cluster, in_flight)
    advance(cluster, WARM_UP_TRIPS * round_trip)
    load.latencies.clear()
    began = time.process_time()
    advance(cluster, trips * round_trip)
    used = time.process_time() - began
    found = load.latencies
    load.stopped = True
    cluster.shutdown()
    count = len(found)
    return {
        "members": size,
        "round_trip_ms": round_trip * 1e3,
        "in_flight": in_flight,
        "entries": entries,
        "requests": requests,
        "per_trip": count / trips,
        "rate": count / trips / round_trip,
        "trips": Spread.of(found).median / round_trip if count else None,
        "cpu_us": used / count * 1e6 if count else None,
    }


def advance(cluster: Cluster, seconds: float) -> None:
    """Let time pass in steps of which each has few calls."""
    for _ in range(round(seconds / STEP_SECONDS)):
        cluster.clock.advance(STEP_SECONDS)


class CountingFSM:
    """A state machine that costs nothing."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, log: object) -> int:
        """Count one command."""
        self.count += 1
        return self.count

    def snapshot(self) -> None:
        """Refuse: nothing here takes snapshots."""
        raise AssertionError("no snapshot is due")

    def restore(self, source: object) -> None:
        """Refuse: nothing here takes snapshots."""
        raise AssertionError("no snapshot is sent")


def window_table(samples: Sequence[Sample], links: Sequence[int]) -> Table:
    """Make a row for each window: commits per round trip, and what a commit takes."""
    header = ["max_append_entries", "max_inflight_requests"]
    header += [f"{link} ms: commits a trip, trips a commit" for link in links]
    table = Table("Three members, by window and round trip", header)
    for window in WINDOWS:
        found = [s for s in samples if (s["entries"], s["requests"]) == window]
        cells = [f"{short(s['per_trip'])}, {short(s['trips'])}" for s in found]
        table.add(*map(str, window), *cells)
    return table


def size_table(samples: Sequence[Sample], links: Sequence[int]) -> Table:
    """Make a row for each number of members."""
    header = ["members", *(f"{link} ms: commits/s, CPU of all" for link in links)]
    table = Table("By number of members, with the widest of these windows", header)
    for size in sorted({sample["members"] for sample in samples}):
        found = [sample for sample in samples if sample["members"] == size]
        cells = [f"{short(s['rate'])}, {short(s['cpu_us'], 'µs')}" for s in found]
        table.add(str(size), *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print tables."""
    parser = make_parser("links", __doc__)
    parser.add_argument("--round-trips", type=int, default=20, help="of each run")
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument(
        "--members", type=numbers, default=[3, 5, 7, 9, 15], metavar="N,..."
    )
    parser.add_argument(
        "--links", type=numbers, default=[10, 50, 150], metavar="MS,..."
    )
    options = parser.parse_args(arguments)
    report = Report("links", options, TXRAFT_SYSTEMS[:1])
    trips, in_flight = options.round_trips, options.in_flight
    windows, sizes = [], []
    for link in options.links:
        for window in WINDOWS:
            tell(f"window {window}, {link} ms")
            windows.append(simulate(3, link / 1e3, in_flight, window, trips))
    for size in options.members:
        for link in options.links:
            tell(f"{size} members, {link} ms")
            sizes.append(simulate(size, link / 1e3, in_flight, WINDOWS[-1], trips))
    report.data["samples"] = {"windows": windows, "members": sizes}
    report.add(window_table(windows, options.links))
    report.add(size_table(sizes, options.links))
    report.finish()


if __name__ == "__main__":
    main()
