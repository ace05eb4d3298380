"""Describes the machine of a run: its parts, its disk, and its other work."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.children import TICKS_PER_SECOND, cpu_seconds

YARDSTICK_BYTES = 300
YARDSTICK_SECONDS = 0.5


def describe_machine() -> dict[str, str]:
    """Name the processors, the memory and the versions of what everything runs on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{os.cpu_count()} x {_processor()}, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": (
            f"{platform.python_implementation()} {platform.python_version()}, "
            f"{platform.python_compiler()}, {platform.python_build()[1]}"
        ),
        "twisted": package_version("twisted"),
        "msgpack": package_version("msgpack"),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def package_version(name: str) -> str:
    """Return the version of an installed Python package, or that it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def syncs_per_second(directory: Path, seconds: float = YARDSTICK_SECONDS) -> float:
    """Measure the yardstick: appends of 300 bytes, each followed by fdatasync."""
    path = directory / "yardstick"
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        os.write(file, bytes(YARDSTICK_BYTES))
        os.fdatasync(file)
        count += 1
    os.close(file)
    path.unlink()
    return count / elapsed


@dataclass(frozen=True)
class Used:
    """Processor time within a while: seconds, and how many cores that makes."""

    own: float
    cores: float
    foreign_cores: float


class Meter:
    """Measures the processor time of processes, and of everything else, from now."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._began = time.perf_counter()
        self._own, self._busy = self._read()

    def _read(self) -> tuple[list[float], float]:
        return [cpu_seconds(pid) for pid in self._pids], busy_seconds()

    def read(self) -> Used:
        """Return what was used since the beginning."""
        own, busy = self._read()
        used = sum(own) - sum(self._own)
        foreign = max(0.0, busy - self._busy - used)
        elapsed = time.perf_counter() - self._began
        return Used(used, used / elapsed, foreign / elapsed)

    def each(self) -> list[float]:
        """Return the seconds that each process has used since the beginning."""
        return [
            now - then for now, then in zip(self._read()[0], self._own, strict=True)
        ]


def busy_seconds() -> float:
    """Return how long all processors together have been busy since the start."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, first.split()[1:])
    return (user + nice + system + irq + soft) / TICKS_PER_SECOND
