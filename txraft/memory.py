"""How much memory this process may use, as far as the system says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, getrlimit

_CGROUP_FILES = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def usable_memory() -> int:
    """Return the least of the machine's memory and this process's limits, in bytes."""
    return min(_bounds())


def _bounds() -> Iterator[int]:
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (RLIMIT_AS, RLIMIT_DATA):
        soft, _ = getrlimit(limit)
        if soft != RLIM_INFINITY:
            yield soft
    for path in _CGROUP_FILES:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit():
            yield int(text)
