"""PySyncObj, in the settings that its users may choose. It never syncs."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.children import free_address
from benchmarks.machine import package_version
from benchmarks.systems.group import NOT_DURABLE, System, TalkingGroup

VERSION = "0.3.17"
NO_BATCH = {"appendEntriesUseBatch": False}
SHORT_PERIODS = {"appendEntriesPeriod": 0.005, "autoTickPeriod": 0.005}
NO_COMPACTION = {
    "logCompactionMinEntries": 1_000_000_000,
    "logCompactionMinTime": 1_000_000_000,
}


class PySyncObjGroup(TalkingGroup):
    """Members with *config*, in memory."""

    def __init__(self, base: Path, size: int, config: dict[str, Any]) -> None:
        super().__init__(base, [free_address() for _ in range(size)])
        self._config = config

    def command(self, number: int) -> list[str]:
        """Return what starts a member."""
        return [
            sys.executable,
            "-m",
            "benchmarks.members.pysyncobj",
            self.addresses[number],
            ",".join(self.addresses),
            json.dumps(self._config),
        ]


def _missing() -> str | None:
    if find_spec("pysyncobj") is None:
        return f"pip install pysyncobj=={VERSION}"
    return None


def _system(name: str, note: str, config: dict[str, Any]) -> System:
    return System(
        name,
        NOT_DURABLE,
        partial(PySyncObjGroup, config=config),
        _missing,
        lambda: f"PySyncObj {package_version('pysyncobj')}",
        note=note,
    )


PYSYNCOBJ_SYSTEMS = [
    _system("pysyncobj", "defaults, in memory", {}),
    _system("pysyncobj-nobatch", "without batching, in memory", NO_BATCH),
    _system("pysyncobj-5ms", "periods of 5 ms, in memory", SHORT_PERIODS),
    _system("pysyncobj-kept", "defaults without compaction", NO_COMPACTION),
    _system(
        "pysyncobj-nobatch-kept",
        "without batching and compaction",
        NO_BATCH | NO_COMPACTION,
    ),
    _system(
        "pysyncobj-5ms-kept",
        "periods of 5 ms, without compaction",
        SHORT_PERIODS | NO_COMPACTION,
    ),
]
