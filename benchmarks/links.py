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
from txraft.testing.clock import HeapClock
from txraft.testing.cluster import Cluster

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
        "trips_to_commit": Spread.of(found).median / round_trip if count else None,
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


def window_table(samples: Sequence[Sample]) -> Table:
    """Make a row for each window and link."""
    header = ["max_append_entries", "max_inflight_requests", "round trip, ms"]
    header += [
        "in flight",
        "commits per round trip",
        "commits/s",
        "round trips to commit",
    ]
    table = Table("Three members, by window and length of the links", header)
    for sample in samples:
        table.add(
            str(sample["entries"]),
            str(sample["requests"]),
            short(sample["round_trip_ms"]),
            str(sample["in_flight"]),
            short(sample["per_trip"]),
            short(sample["rate"]),
            short(sample["trips_to_commit"]),
        )
    return table


def size_table(samples: Sequence[Sample]) -> Table:
    """Make a row for each number of members and link."""
    header = ["members", "round trip, ms", "commits/s", "round trips to commit"]
    header += ["CPU of all nodes for a commit"]
    table = Table("By number of members, with a window that is wide enough", header)
    for sample in samples:
        table.add(
            str(sample["members"]),
            short(sample["round_trip_ms"]),
            short(sample["rate"]),
            short(sample["trips_to_commit"]),
            short(sample["cpu_us"], "µs"),
        )
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
    report.add(window_table(windows))
    report.add(size_table(sizes))
    report.finish()


if __name__ == "__main__":
    main()
