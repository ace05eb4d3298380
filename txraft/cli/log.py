"""`txraft log`: check or print the log of a stopped node, or skip one entry of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from txraft.cli.exits import Exit
from txraft.cli.offline import Opened, opened
from txraft.cli.output import Output, table_lines
from txraft.cli.running import offline
from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError, DataCorrupted, RaftError
from txraft.kv.commands import decode
from txraft.kv.state import KeyValueFSM
from txraft.node.ownership import noted_application
from txraft.node.skipping import MIN_DIGITS, check_skip, digest_of, skip_entry
from txraft.node.startup import read_hard_state
from txraft.storage.directory import DataDirectory
from txraft.storage.snapshots import SnapshotReader
from txraft.storage.stores import open_stores
from txraft.wire.decisions import activated_level, voided_incarnation

READ_BYTES = 1 << 20
SHOWN_CHARACTERS = 100
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group("log")
def log() -> None:
    """Check or print a stopped node's log, or skip one entry."""


@log.command("verify")
@click.argument("data_dir", type=DIRECTORY)
@offline
def verify(output: Output, data_dir: Path) -> int:
    """Read and check everything in DATA_DIR.

    That is the log, term and vote, and the snapshots. The status is 1 for damage, which
    is named with file and offset. A torn last write is no damage: the node cuts it off
    at its start.
    """
    try:
        with opened(data_dir) as stores:
            return _verified(output, stores)
    except DataCorrupted as error:
        if output.as_json:
            output.json({"sound": False, "problems": [str(error)]})
        output.problem(f"txraft: {error}")
        return Exit.NO


@log.command("dump")
@click.argument("data_dir", type=DIRECTORY)
@click.option("--first", type=click.IntRange(min=1), help="Index to begin with.")
@click.option("--last", type=click.IntRange(min=1), help="Index to end with.")
@offline
def dump(output: Output, data_dir: Path, first: int | None, last: int | None) -> None:
    """Print the entries of the log in DATA_DIR, one on each line."""
    with opened(data_dir) as stores:
        is_ours = _is_ours(stores)
        low, high = stores.log.first_index(), stores.log.last_index()
        begin, end = max(first or low, low), min(last or high, high)
        for entry in _entries(stores, begin, end) if low else ():
            if output.as_json:
                output.document(as_json(entry, is_ours))
            else:
                output.line(as_line(entry, is_ours))


@log.command("skip")
@click.argument("data_dir", type=DIRECTORY)
@click.option("--index", type=click.IntRange(min=1), required=True, help="Its index.")
@click.option("--term", type=click.IntRange(min=1), required=True, help="Its term.")
@click.option(
    "--digest",
    required=True,
    help="SHA-256 of its data, or the first 16 digits of that, which `log dump` shows.",
)
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")
@offline
def skip(
    output: Output, data_dir: Path, index: int, term: int, digest: str, yes: bool
) -> None:
    """Let the stopped node in DATA_DIR skip one command, for ever.

    This is for a command at which every member stops, and stops again when it is
    started. Run it for each member that has stopped there, then start them. The message
    with which they stopped names index, term and digest. Do not skip a command that
    another member has applied: their states would differ from then on.

    It is refused unless this node has stopped at that entry, which is therefore
    committed, and it is refused if a snapshot covers the entry. When the node starts,
    it takes a snapshot at once and cuts the log behind it.
    """
    named = (index, term, digest)
    with opened(data_dir) as stores:
        name, kind = stores.name, stores.kind
        found = check_skip(stores.log, stores.stable, stores.snapshots, *named)
        line = as_line(stores.log.get_log(index), _is_ours(stores))
    if output.as_json:
        output.json({"node": name, "skipped": str(found), "done": yes})
    output.line(line)
    if not yes:
        output.line("Nothing was changed. Repeat with --yes to skip it.")
        return
    # Opened anew, as a node does it: what was looked at above cannot be written.
    # `skip_entry` checks again, for in between somebody may have started the node.
    directory = DataDirectory(data_dir, name)
    try:
        held = open_stores(kind, directory, name)
        try:
            skip_entry(held.log, held.stable, SnapshotReader(data_dir), *named)
        finally:
            held.close()
    finally:
        directory.close()
    output.line(
        f"Done: {name} skips {found}. Do the same on every member that has stopped "
        "there, then start them; `txraft doctor` compares them."
    )


def as_line(entry: Entry, is_ours: bool = True) -> str:
    """Format *entry* for people: index, term, type, digest and meaning.

    The meaning of a command is known only if *is_ours*: the log is that of `twistd
    raft`.
    """
    said = _meaning(entry, is_ours)
    if len(said) > SHOWN_CHARACTERS:
        said = said[: SHOWN_CHARACTERS - 3] + "..."
    digest = ""
    if entry.type is LogType.COMMAND:
        digest = digest_of(entry).hex()[:MIN_DIGITS]
    kind = entry.type.name.lower()
    return (
        f"{entry.index:>10} {entry.term:>6}  {kind:<13} {digest:<{MIN_DIGITS}} {said}"
    )


def as_json(entry: Entry, is_ours: bool = True) -> dict[str, object]:
    """Format *entry* for machines, with its data in base64."""
    shaped: dict[str, object] = {
        "index": entry.index,
        "term": entry.term,
        "type": entry.type.name.lower(),
        "data": None if entry.data is None else b64encode(entry.data).decode("ascii"),
    }
    if entry.type is LogType.COMMAND:
        shaped["digest"] = digest_of(entry).hex()
    if entry.configuration is not None:
        shaped["members"] = list(entry.configuration.addresses)
    if entry.type is LogType.COMMAND or entry.data:
        shaped["meaning"] = _meaning(entry, is_ours)
    return shaped


def _is_ours(stores: Opened) -> bool:
    """Tell whether the log may be that of `twistd raft`."""
    return noted_application(stores.stable) in ("", KeyValueFSM.application_name)


def _meaning(entry: Entry, is_ours: bool) -> str:
    if entry.configuration is not None:
        return ", ".join(entry.configuration.addresses)
    if entry.type is LogType.NOOP:
        return _decision(entry.data or b"")
    if entry.type is not LogType.COMMAND:
        return ""
    foreign = f"{len(entry.data or b'')} bytes of another application"
    # Another application's command may decode by chance, and would be shown as what it
    # is not.
    if not is_ours:
        return foreign
    try:
        return str(decode(entry.data))
    except ApplicationError:
        return foreign
    except RaftError as error:
        return str(error)


def _decision(data: bytes) -> str:
    peer, incarnation = voided_incarnation(data)
    if incarnation:
        return f"incarnation {incarnation.hex()} of {peer} is void"
    level = activated_level(data)
    return f"level {level} of the state machine is active" if level else ""


def _entries(stores: Opened, first: int, last: int) -> Iterator[Entry]:
    while first <= last:
        entries = stores.log.get_logs(first, last, READ_BYTES)
        yield from entries
        # The store gives as many as fit into the bytes, at least one.
        first = entries[-1].index + 1


def _verified(output: Output, stores: Opened) -> int:
    problems = []
    count = 0
    first, last = stores.log.first_index(), stores.log.last_index()
    with output.progress("verifying", max(0, last - first + 1)) as bar:
        # To read is to check: an entry with a wrong checksum raises.
        for entry in _entries(stores, first, last) if first else ():
            count += 1
            bar.update(1)
            assert entry.index, "the log has checked it"
    found = stores.snapshots.list()
    problems += stores.snapshots.warnings
    # All of them, also when one is damaged: an older one may still be sound.
    for meta in found:
        try:
            stores.snapshots.open(meta.id)[1].close()
        except RaftError as error:
            problems.append(str(error))
    state = read_hard_state(stores.stable)
    application = noted_application(stores.stable)
    if output.as_json:
        output.json(
            {
                "sound": not problems,
                "node": stores.name,
                "application": application or None,
                "first": first,
                "last": last,
                "entries": count,
                "term": state.term,
                "voted_for": state.voted_for,
                "snapshots": [asdict(meta) for meta in found],
                "warnings": list(stores.warnings),
                "problems": problems,
            }
        )
    rows = [
        ("node", stores.name),
        *((("application", application),) if application else ()),
        ("term", f"{state.term}, voted for {state.voted_for or 'nobody'}"),
        ("log", f"entries {first} to {last}" if first else "empty"),
        *(("snapshot", f"{meta.id}, {meta.size} bytes") for meta in found),
        *(("torn", warning) for warning in stores.warnings),
        *(("damage", problem) for problem in problems),
        ("", "damaged" if problems else "sound"),
    ]
    for line in list(table_lines(("", ""), rows))[1:]:
        output.line(line)
    return Exit.NO if problems else Exit.OK
