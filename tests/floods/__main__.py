"""Runs every flood against a cluster with TLS and prints what it cost.

    python -m tests.floods [--count 8000] [--seconds 10] [KIND ...]

It ends with status 1 if commits stopped for too long or memory grew too far.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from tests.floods.attack import FLOODS
from tests.support.hostile_members import Member, SecureCluster

MAX_PAUSE = 5.0
MAX_GROWTH_MIB = 400.0
VALUE = b"v" * 65536
OVER_HTTP = ("requests", "drops", "bodies", "readers")


class Load:
    """Writes through one member, one write at a time, and notes the longest pause."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self.commits = 0
        self.longest = 0.0
        self._thread.start()

    def stop(self) -> None:
        """End; the pause that has not ended counts too."""
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped:
            status, _ = self._member.request("PUT", "/v1/kv/load", VALUE)
            now = time.monotonic()
            if status == 200:
                self.commits += 1
                self.longest = max(self.longest, now - last)
                last = now
        self.longest = max(self.longest, time.monotonic() - last)


class Flooded(SecureCluster):
    """The cluster; the victim is its leader, writes go through another member."""

    handshake = "5s"

    @classmethod
    def configure(cls, member: Member, every: Sequence[Member]) -> None:
        """Let refusals be logged as sparsely as they are by default."""
        super().configure(member, every)
        path = cls.directory / f"{member.name}.yaml"
        path.write_text(path.read_text().replace("max_warnings: 1000000,", ""))

    def runTest(self) -> None:
        """This is no test, but what it is made of is needed."""

    def flood(self, kind: str, count: int, seconds: float) -> bool:
        """Run one flood, print its line, and tell whether it was borne."""
        victim = self.leader() or self.members[0]
        port = victim.http if kind in OVER_HTTP else victim.port
        if kind == "deafness":
            port = self.absent.port
        elif kind == "readers":
            for number in range(32):
                victim.request("PUT", f"/v1/kv/much/{number}", bytes(500_000))
        pair = self.absent.pair
        assert pair is not None
        command = [sys.executable, "-m", "tests.floods.attack", kind]
        before = memory_mib(victim, "VmRSS")
        load = Load(next(m for m in self.members if m is not victim))
        attack = subprocess.run(
            [*command, *map(str, (port, count, seconds, pair.certificate, pair.key))],
            check=True,
            capture_output=True,
            text=True,
        )
        load.stop()
        growth = memory_mib(victim, "VmHWM") - before
        borne = load.longest < MAX_PAUSE and growth < MAX_GROWTH_MIB
        print(
            f"{kind:<12} {int(attack.stdout):>12} {load.commits / seconds:10.1f}"
            f" {load.longest:10.2f} {before:9.0f} {growth:10.0f}"
            f"  {'borne' if borne else 'NOT BORNE'}",
            flush=True,
        )
        return borne


def memory_mib(member: Member, field: str) -> float:
    """Return what the process of *member* holds, or has held at most."""
    assert member.process is not None, "it runs"
    with open(f"/proc/{member.process.pid}/status") as status:
        for line in status:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    raise AssertionError(f"no {field}")


def main() -> None:
    """Run the floods that the command line names, by default all of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(FLOODS))
    arguments = parser.parse_args()
    print(
        "flood          how much   commits/s  longest s    at MiB  more, peak",
        flush=True,
    )
    borne = True
    for kind in arguments.kinds or FLOODS:
        Flooded.begin()
        try:
            borne &= Flooded().flood(kind, arguments.count, arguments.seconds)
        finally:
            Flooded.end()
    sys.exit(0 if borne else 1)


if __name__ == "__main__":
    main()
