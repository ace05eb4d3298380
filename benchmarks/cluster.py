"""How fast three processes on loopback commit, everything synced.

    python -m benchmarks.cluster [--seconds 3] [--rounds 3] [--inflight 1,64] [--tls]

Values of 256 bytes, proposals made inside the leader's process. Each round also
measures what the disk can do at that moment, one append and fdatasync after the
other, and rates are printed beside it: these machines are shared, so only ratios of
one run mean much. Then memory after 100 000 entries over 50 000 keys, and how long
a restart with 100 000 entries in the log takes, from opening the data directory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from txraft.certificates import init_authority, issue_certificate

FIRST_PORT = 18300
ELECTION_SECONDS = 15.0


class MemberProcess:
    """One member in a process of its own."""

    def __init__(
        self,
        directory: Path,
        address: str,
        peers: list[str],
        config: dict[str, Any],
        tls: Path | None = None,
    ) -> None:
        self.address = address
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.node",
                str(directory),
                address,
                ",".join(peers),
                json.dumps(config),
                *([] if tls is None else [str(tls)]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        """Read one answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.address} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and read its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        """Let the member shut down in order, and end it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Cluster:
    """Three members, their directories kept from one start to the next."""

    def __init__(
        self,
        base: Path,
        config: dict[str, Any],
        tls: Path | None = None,
        size: int = 3,
    ) -> None:
        self._base = base
        self._tls = tls
        self._config = config
        self._peers = [f"127.0.0.1:{FIRST_PORT + i}" for i in range(size)]
        self.members: list[MemberProcess] = []

    def start(self) -> list[float]:
        """Start every member; return how long each took to open, in seconds."""
        self.members = [
            MemberProcess(
                self._base / str(i), peer, self._peers, self._config, self._tls
            )
            for i, peer in enumerate(self._peers)
        ]
        return [member.read()["opened"] for member in self.members]

    def stop(self) -> None:
        """Stop every member."""
        for member in self.members:
            member.stop()
        self.members = []

    def leader(self) -> MemberProcess:
        """Wait for a leader."""
        until = time.monotonic() + ELECTION_SECONDS
        while time.monotonic() < until:
            for member in self.members:
                if member.ask(do="status")["leads"]:
                    return member
            time.sleep(0.1)
        raise SystemExit("no leader was elected")

    def wait_applied(self) -> list[dict[str, Any]]:
        """Wait until all have applied the same; return what each says of itself."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = [member.ask(do="status") for member in self.members]
            if len({status["applied"] for status in found}) == 1:
                return found
            time.sleep(0.05)
        raise SystemExit("the members did not converge")


@contextmanager
def cluster(
    base: Path, config: dict[str, Any], tls: Path | None = None
) -> Iterator[Cluster]:
    """Make a cluster in *base* that is stopped at the end."""
    made = Cluster(base, config, tls)
    try:
        yield made
    finally:
        made.stop()


def syncs_per_second(directory: Path, seconds: float = 0.5) -> float:
    """Measure the yardstick: appends of 300 bytes, each followed by fdatasync."""
    path = directory / "yardstick"
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    count, until = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    while time.perf_counter() < until:
        os.write(file, bytes(300))
        os.fdatasync(file)
        count += 1
    elapsed = time.perf_counter() - began
    os.close(file)
    path.unlink()
    return count / elapsed


def make_certificates(directory: Path) -> Path:
    """Make an authority and the one certificate that all members show."""
    init_authority(directory)
    issue_certificate(directory, ["127.0.0.1"])
    return directory


def rates(base: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure commits per second at each number in flight."""
    config = {"max_append_entries": arguments.max_append_entries}
    found: dict[int, list[dict[str, Any]]] = {n: [] for n in arguments.inflight}
    tls = make_certificates(base / "tls") if arguments.tls else None
    with cluster(base / "rates", config, tls) as running:
        running.start()
        leader = running.leader()
        for _ in range(arguments.rounds):
            for inflight in arguments.inflight:
                syncs = syncs_per_second(base)
                sample = leader.ask(
                    do="load",
                    inflight=inflight,
                    seconds=arguments.seconds,
                    bytes=arguments.bytes,
                    keys=50_000,
                )
                found[inflight].append(sample | {"syncs": syncs})
                running.wait_applied()
    return {str(n): _medians(samples) for n, samples in found.items()}


def _medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    table = {
        key: statistics.median(sample[key] for sample in samples) for key in samples[0]
    }
    each = [sample["rate"] for sample in samples]
    return table | {"least": min(each), "most": max(each)}


def memory_and_restart(base: Path) -> dict[str, Any]:
    """Measure memory after 100 000 entries, and a restart with them in the log."""
    config = {"snapshot_interval": 86400.0, "max_append_entries": 1024}
    with cluster(base / "memory", config) as running:
        running.start()
        leader = running.leader()
        idle = [member.ask(do="status")["resident_mib"] for member in running.members]
        filled = leader.ask(do="fill", entries=100_000, bytes=256, keys=50_000)
        grown = [status["resident_mib"] for status in running.wait_applied()]
        running.stop()
        opened = running.start()
        began = time.monotonic()
        running.leader()
        elected = time.monotonic() - began
    return {
        "idle_mib": max(idle),
        "grown_mib": max(g - i for g, i in zip(grown, idle, strict=True)),
        "fill_seconds": filled["seconds"],
        "restart_seconds": max(opened),
        "leader_seconds": elected,
    }


def main() -> None:
    """Run everything and print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=256)
    parser.add_argument("--max-append-entries", type=int, default=64)
    parser.add_argument(
        "--inflight",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[1, 64, 512],
    )
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--tls", action="store_true", help="TLS among the members")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        table = rates(base, arguments)
        memory = {} if arguments.skip_memory else memory_and_restart(base)
    header = (
        "in flight  commits/s  (least..most)   p50 ms  p99 ms  leader µs  x syncs/s"
    )
    print(header)
    for inflight, row in table.items():
        spread = f"({row['least']:.0f}..{row['most']:.0f})"
        print(
            f"{inflight:>9}  {row['rate']:9.0f}  {spread:>14}"
            f"  {row['p50_ms']:6.2f}  {row['p99_ms']:6.2f}"
            f"  {row['cpu_us_per_entry']:9.1f}  {row['rate'] / row['syncs']:8.2f}"
        )
    for key, value in memory.items():
        print(f"{key:>16}  {value:.2f}")
    print(json.dumps({"rates": table, "memory": memory}))


if __name__ == "__main__":
    main()
