"""Find the memory that this process may use for its state, from the system's limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, getrlimit

NODE_BYTES = 160 << 20
"""Bytes of a node beside its state: code, newest entries, requests, frames."""

RESERVED_BYTES = 256 << 20
"""Address space that threads reserve and never touch."""

LEAST_BYTES = 32 << 20

_CGROUP_FILES = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def usable_memory() -> int:
    """Return the bytes that a node may use for its state, at least `LEAST_BYTES`.

    It is the lowest of the machine's memory and the limits of its control group and of
    the process, minus what a node needs besides.
    """
    return max(LEAST_BYTES, min(_bounds()) - NODE_BYTES)


def _bounds() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (RLIMIT_AS, RLIMIT_DATA):
        soft, _ = getrlimit(limit)
        if soft != RLIM_INFINITY:
            yield soft - RESERVED_BYTES
    for path in _CGROUP_FILES:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue  # the other version of control groups, or none
        if text.isdigit():  # else "max", which is no limit
            yield int(text)
