"""Measures the cost of a linearizable read when many wait, and the longest turn.

    python -m benchmarks reads [--waiting 1,100,10000,100000] [--rounds 3]

Three members share one process, with logs, snapshots and connections in memory, so that
what is measured is processor time, of all three. So many reads as are named are
begun together, and again when all are answered, until there were enough for a figure.
The time of a read should not depend on how many wait, and no turn of the event loop
should be long: heartbeats wait for it. Beginning the reads is left out of the longest
turn, as it is the work of who reads; for its sake the timeouts are long.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import methodcaller
from typing import Any

from twisted.internet.task import Clock

from benchmarks.figures import short
from benchmarks.options import make_parser, numbers
from benchmarks.report import Report
from benchmarks.tables import Table
from txraft.config import Config
from txraft.testing import Cluster

LEAST_READS = 2000
"""So many are timed at least, in each round."""


TIMEOUT = 60.0
MEMBERS = "abc"


class WallClock(Clock):
    """A clock in real time that can be put forward; `longest` is its longest turn."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()
        self.longest = 0.0

    def seconds(self) -> float:
        """Return the seconds since the start, with those that were skipped."""
        return time.perf_counter() - self._began

    def advance(self, amount: float) -> None:
        """Skip *amount*, and have a turn."""
        self._began -= amount
        self.turn()

    def turn(self) -> None:
        """Make the calls that are due, but none that they make due."""
        began = self.seconds()
        self.calls.sort(key=methodcaller("getTime"))
        due = [call for call in self.calls if call.getTime() <= began]
        for call in due:
            if call in self.calls:
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        self.longest = max(self.longest, self.seconds() - began)


def measure(waiting: int) -> dict[str, Any]:
    """Have *waiting* reads at once, often enough; return what one took."""
    clock = WallClock()
    config = Config(
        heartbeat_timeout=TIMEOUT,
        election_timeout=TIMEOUT,
        leader_lease_timeout=TIMEOUT,
        snapshot_interval=60 * TIMEOUT,
    )
    cluster = Cluster(3, config, clock=clock)
    for address in MEMBERS:
        cluster.start_node(address, MEMBERS)
    cluster.wait_until(lambda: bool(cluster.leaders()), 3 * TIMEOUT)
    cluster.apply(b"one")
    leader = cluster.leader.raft
    done = 0
    clock.longest = 0.0
    began = time.process_time()
    while done < max(LEAST_READS, waiting):
        answered: list[int] = []
        for _ in range(waiting):
            leader.linearizable().addCallback(answered.append)
        while len(answered) < waiting:
            clock.turn()
        done += waiting
    seconds = time.process_time() - began
    cluster.shutdown()
    return {
        "waiting": waiting,
        "microseconds": seconds / done * 1e6,
        "longest_ms": clock.longest * 1e3,
    }


def make_table(samples: Sequence[dict[str, Any]], points: Sequence[int]) -> Table:
    """Make a row for each number that wait: the best of its rounds, as usual for
    processor time, but the longest of all turns."""
    header = ["reads that wait", "µs a read", "ratio to the one before"]
    header += ["longest turn, ms"]
    table = Table("Linearizable reads at once", header)
    before = None
    for waiting in points:
        found = [sample for sample in samples if sample["waiting"] == waiting]
        best = min(sample["microseconds"] for sample in found)
        table.add(
            str(waiting),
            short(best),
            "" if before is None else short(best / before),
            short(max(sample["longest_ms"] for sample in found)),
        )
        before = best
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = make_parser("reads", __doc__)
    parser.add_argument(
        "--waiting", type=numbers, default=[1, 100, 10_000, 100_000], metavar="N,..."
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    report = Report("reads", options, [])
    samples = [measure(n) for _ in range(options.rounds) for n in options.waiting]
    report.data["samples"] = samples
    report.add(make_table(samples, options.waiting))
    report.finish()


if __name__ == "__main__":
    main()
