"""txraft itself, as `twistd raft` runs it but for HTTP."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.children import free_address
from benchmarks.systems.group import System, TalkingGroup

NEVER = 86_400.0


class TxraftGroup(TalkingGroup):
    """Nodes with *config*; *tls* is a directory of certificates."""

    def __init__(
        self,
        base: Path,
        size: int = 3,
        config: dict[str, Any] | None = None,
        tls: Path | None = None,
    ) -> None:
        super().__init__(base, [free_address() for _ in range(size)])
        self._config = config or {}
        self._tls = tls

    def command(self, number: int) -> list[str]:
        """Return what starts a member."""
        return [
            sys.executable,
            "-m",
            "benchmarks.members.txraft",
            str(self.base / str(number)),
            self.addresses[number],
            ",".join(self.addresses),
            json.dumps(self._config),
            *([] if self._tls is None else [str(self._tls)]),
        ]


def txraft_version() -> str:
    """Return the version of the package, or that a checkout runs."""
    try:
        return f"txraft {version('txraft')}"
    except PackageNotFoundError:
        return "txraft of this checkout"


def _system(name: str, note: str, **config: Any) -> System:
    return System(
        name,
        "fdatasync",
        partial(TxraftGroup, config=config),
        lambda: None,
        txraft_version,
        note=note,
    )


TXRAFT_SYSTEMS = [
    _system("txraft", "defaults of the library"),
    _system(
        "txraft-1024",
        "defaults of a node: max_append_entries 1024",
        max_append_entries=1024,
    ),
    _system("txraft-objects", "commands of a replicated object", objects=True),
    _system("txraft-kept", "no snapshots", snapshot_interval=NEVER),
    _system("txraft-compacted", "a snapshot every 2 to 4 s", snapshot_interval=2.0),
]
