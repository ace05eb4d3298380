"""hashicorp/raft, of Debian's packages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.children import free_address
from benchmarks.systems.go import debian_version, go_program, go_version, missing_go
from benchmarks.systems.group import NOT_DURABLE, System, TalkingGroup

LIBRARY = "github.com/hashicorp/raft-boltdb"
PACKAGES = "golang-github-hashicorp-raft-dev golang-github-hashicorp-raft-boltdb-dev"


class HashicorpGroup(TalkingGroup):
    """Servers with a *store*, bolt or inmem."""

    def __init__(
        self,
        base: Path,
        size: int = 3,
        store: str = "bolt",
        entries: int = 64,
        snapshots: bool = True,
    ) -> None:
        super().__init__(base, [free_address() for _ in range(size)])
        self._options = [
            f"-store={store}",
            f"-max-append-entries={entries}",
            f"-snapshots={'true' if snapshots else 'false'}",
        ]

    def command(self, number: int) -> list[str]:
        """Return what starts a member."""
        return [
            go_program("hashicorp.go"),
            f"-directory={self.base / str(number)}",
            f"-address={self.addresses[number]}",
            f"-peers={','.join(self.addresses)}",
            *self._options,
        ]


def _version() -> str:
    raft = debian_version("golang-github-hashicorp-raft-dev")
    bolt = debian_version("golang-github-hashicorp-raft-boltdb-dev")
    return f"hashicorp/raft {raft}, raft-boltdb {bolt}, {go_version()}"


def _system(
    name: str, note: str, store: str, entries: int, snapshots: bool = True
) -> System:
    return System(
        name,
        "fdatasync" if store == "bolt" else NOT_DURABLE,
        partial(HashicorpGroup, store=store, entries=entries, snapshots=snapshots),
        lambda: missing_go(LIBRARY, PACKAGES),
        _version,
        note,
    )


HASHICORP_SYSTEMS = [
    _system("hashicorp-64", "BoltDB, MaxAppendEntries 64 (default)", "bolt", 64),
    _system("hashicorp-1024", "BoltDB, MaxAppendEntries 1024", "bolt", 1024),
    _system("hashicorp-inmem", "InmemStore, MaxAppendEntries 64", "inmem", 64),
    _system("hashicorp-kept", "BoltDB, no snapshots", "bolt", 64, False),
    _system("hashicorp-inmem-kept", "InmemStore, no snapshots", "inmem", 64, False),
]
