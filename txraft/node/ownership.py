"""Ownership: refuse the data of another application.

A log is a list of commands that only one application understands. Another that is
started on it, or recovers it, would take them for its own: it would skip them or fail
at them, write a snapshot without them, and append commands of its own. So the stable
store names the application, beside term and vote, from the first start on:

1. What is noted there and what the state machine says of itself must be the same.
2. Where nothing is noted yet, as in a directory from before there were names, a state
   machine that can tell its own data from others' looks at some of them first.
3. State machines without a name are not told apart from each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol, runtime_checkable

from txraft.core.entry import LogType
from txraft.errors import ContractBroken, StorageError, WrongApplication
from txraft.interfaces import (
    DiscerningFSM,
    LogStore,
    NamedFSM,
    SnapshotMeta,
    StableStore,
)

APPLICATION = b"Application"
MAX_NAME_BYTES = 255

PROBED_ENTRIES = 500
"""So many are looked at from each end of a log that names no application."""

HEAD_BYTES = 64
"""So much of a snapshot tells whose it is."""

OF_ITS_OWN = "Give each application a data directory of its own"


@runtime_checkable
class PlacedLogStore(Protocol):
    """A log store that tells where its newest entries are, for messages."""

    @property
    def place(self) -> str:
        """The path of a file or directory."""


class SnapshotShelf(Protocol):
    """As much of a `SnapshotStore` as reading takes."""

    def list(self) -> list[SnapshotMeta]:
        """List finished snapshots, newest first."""

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """Open one."""


def application_of(fsm: object) -> str:
    """Return the name of the application that *fsm* is of, "" if it has none.

    Raises: ContractBroken, if it is no name.
    """
    name = fsm.application_name if isinstance(fsm, NamedFSM) else ""
    if not isinstance(name, str) or len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise ContractBroken(
            f"{type(fsm).__name__}.application_name is {name!r}: it must be a text of "
            f"at most {MAX_NAME_BYTES} bytes"
        )
    return name


def noted_application(stable_store: StableStore) -> str:
    """Return the name of the application that the data are of, "" if none is noted."""
    return stable_store.get(APPLICATION).decode("utf-8", "replace")


def noted_as(application: str) -> dict[bytes, bytes]:
    """Encode the name of the *application* under its key; nothing if it has none."""
    return {APPLICATION: application.encode("utf-8")} if application else {}


def check_application(
    fsm: object,
    log_store: LogStore,
    stable_store: StableStore,
    snapshots: SnapshotShelf,
) -> None:
    """Refuse *fsm* where the data are of another application. Nothing is changed.

    Raises: WrongApplication, ContractBroken, and whatever the stores raise.
    """
    own, noted = application_of(fsm), noted_application(stable_store)
    if own == noted:
        return
    place = log_store.place if isinstance(log_store, PlacedLogStore) else "the log"
    if noted:
        whose = f"{own!r}" if own else f"{type(fsm).__name__}, which names none"
        raise WrongApplication(
            f"{place}: the data are of the application {noted!r}, not of {whose}. "
            f"{OF_ITS_OWN}"
        )
    if isinstance(fsm, DiscerningFSM):
        for what in _foreign(fsm, log_store, snapshots):
            raise WrongApplication(
                f"{place}: the data are of another application than {own!r}: {what} is "
                f"none of it. {OF_ITS_OWN}"
            )


def check_offered(fsm: object, application: str) -> None:
    """Refuse a leader's snapshot of *application*, "" where it names none, for *fsm*.

    Raises: WrongApplication, if both have names and these differ; ContractBroken.
    """
    own = application_of(fsm)
    # A member that was upgraded names its application, when others do not yet.
    if own and application and own != application:
        raise WrongApplication(
            f"it is of the application {application!r}, and this server is of {own!r}: "
            "one of the two is in a cluster that it does not belong to. Nothing was "
            "dropped here"
        )


def check_head(fsm: object, head: bytes) -> None:
    """Refuse a leader's snapshot that begins with *head*, if *fsm* can tell.

    Raises: WrongApplication, ContractBroken, and whatever the FSM raises.
    """
    if isinstance(fsm, DiscerningFSM) and not fsm.is_own_snapshot(head):
        own = application_of(fsm) or type(fsm).__name__
        raise WrongApplication(
            f"it is of another application than {own!r}, by its first bytes. Nothing "
            "was dropped here"
        )


def _foreign(
    fsm: DiscerningFSM, log_store: LogStore, snapshots: SnapshotShelf
) -> Iterator[str]:
    """Name the newest snapshot and commands that are not of *fsm*."""
    for meta in snapshots.list():
        try:
            _, file = snapshots.open(meta.id)
        except StorageError:
            continue  # it is passed over at the start, too
        with file:
            if not fsm.is_own_snapshot(file.read(HEAD_BYTES)):
                yield f"snapshot {meta.id}"
        break  # one snapshot tells: they are all of the same application
    first, last = log_store.first_index(), log_store.last_index()
    if not last:
        return
    oldest = range(first, min(last, first + PROBED_ENTRIES - 1) + 1)
    newest = range(max(oldest.stop, last - PROBED_ENTRIES + 1), last + 1)
    for index in (*oldest, *newest):
        entry = log_store.get_log(index)
        data = entry.data or b""
        if entry.type is LogType.COMMAND and not fsm.is_own_command(data):
            yield f"entry {index} (term {entry.term}, {len(data)} bytes)"
