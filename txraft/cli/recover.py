"""`txraft recover`: give a stopped node a new membership after a lost quorum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from txraft.addresses import parse_address
from txraft.cli.offline import Opened, opened
from txraft.cli.output import Output
from txraft.cli.running import offline
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.errors import RaftError, StorageError, WrongApplication
from txraft.interfaces import SnapshotMeta
from txraft.kv.state import KeyValueFSM
from txraft.node.cluster_recovery import recover_cluster, skipped_in
from txraft.node.ownership import check_application
from txraft.node.startup import read_hard_state, scan
from txraft.storage.directory import DataDirectory
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stores import Stores, open_stores

SNAPSHOTS_RETAINED = 2


@click.command("recover")
@click.argument(
    "data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--member",
    "-m",
    "members",
    multiple=True,
    required=True,
    metavar="HOST:PORT",
    help="Peer address of a member of the new membership; repeat it for each. "
    "ID=HOST:PORT at protocol version 3.",
)
@click.option(
    "--skip",
    "skip",
    multiple=True,
    metavar="INDEX:TERM:DIGEST",
    help="A command to leave out because it cannot be applied; repeat it for each.",
)
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")
@offline
def recover(
    output: Output,
    data_dir: Path,
    members: Sequence[str],
    skip: Sequence[str],
    yes: bool,
) -> None:
    """Give the stopped node in DATA_DIR a new membership.

    This is for a cluster that has lost a majority of its members for ever. It is not
    safe: data that only the lost members held is lost, and entries that were never
    committed may become committed. Never start the lost members again.

    Without --yes it shows the present data and the new membership, and changes
    nothing. It is for the data of `twistd raft`; an application with its own state
    machine calls txraft.recover_cluster.

    Copy the data directory first. Of several survivors choose the one whose last
    entry has the highest term, then the highest index. Recover that one alone, start
    it, and add the others with empty directories (`txraft peer add`).
    """
    configuration = Configuration(tuple(_server(text) for text in members))
    configuration.check()
    with opened(data_dir) as stores:
        name, kind = stores.name, stores.kind
        _refuse_embedded(stores)
        skipped_in(stores.log, stores.stable, skip)  # raises before anything is asked
        _show(output, stores, configuration)
    if name not in {id for s in configuration.servers for id in (s.id, s.address)}:
        raise click.UsageError(
            f"{data_dir} belongs to {name}, which is not among the members given"
        )
    if not yes:
        output.line("Nothing was changed. Repeat with --yes to do it.")
        return
    directory = DataDirectory(data_dir, name)
    try:
        held = open_stores(kind, directory, name)
        snapshots = FileSnapshotStore(directory.path, SNAPSHOTS_RETAINED)
        meta = _recovered(held, snapshots, configuration, skip)
        held.close()  # before the lock is given back by `directory.close`
    finally:
        directory.close()
    output.line(f"Done: snapshot {meta.id} holds everything. Start the node.")


def _recovered(
    held: Stores,
    snapshots: FileSnapshotStore,
    configuration: Configuration,
    skip: Sequence[str],
) -> SnapshotMeta:
    fsm = KeyValueFSM()
    fsm.is_awaited = lambda index: False  # no caller waits for answers
    try:
        return recover_cluster(
            fsm, held.log, held.stable, snapshots, configuration, skip
        )
    except (RaftError, OSError):
        raise
    except Exception as error:
        notes = "; ".join(getattr(error, "__notes__", ()))
        what = f"{type(error).__name__}: {error}"
        raise StorageError(f"nothing was changed: {what}; {notes}") from error


def _refuse_embedded(stores: Opened) -> None:
    """Refuse the data of another application, and say how to recover it."""
    try:
        check_application(KeyValueFSM(), stores.log, stores.stable, stores.snapshots)
    except WrongApplication as error:
        raise WrongApplication(
            f"{error}. To recover this data, call txraft.recover_cluster with its own "
            "state machine: see `Recover your own application` in the "
            "manual"
        ) from error


def _server(text: str) -> Server:
    id, _, address = text.rpartition("=")
    try:
        parse_address(address)
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no HOST:PORT: {error}") from error
    return Server(id or address, address, Suffrage.VOTER)


def _show(output: Output, stores: Opened, configuration: Configuration) -> None:
    log, snapshots = stores.log, stores.snapshots.list()
    snapshot = snapshots[0] if snapshots else None
    last = log.last_index()
    runs, special = scan(log)
    term = runs[-1][1] if last else 0
    # The log may be empty, or end before the snapshot that replaced it.
    if snapshot is not None and snapshot.index >= last:
        last, term = snapshot.index, snapshot.term
    changes = [e for e in special if e.configuration is not None]
    newest = changes[-1].configuration if changes else None
    if newest is None and snapshot is not None:
        newest = snapshot.configuration
    before = newest.addresses if newest is not None else ()
    state = read_hard_state(stores.stable)
    if output.as_json:
        output.json(
            {
                "node": stores.name,
                "term": state.term,
                "last_index": last,
                "last_term": term,
                "members": list(before),
                "new_members": list(configuration.addresses),
            }
        )
    output.line(f"node         {stores.name}, term {state.term}")
    output.line(f"last entry   index {last}, term {term}")
    output.line(f"members      {', '.join(before) or 'none'}")
    output.line(f"new members  {', '.join(configuration.addresses)}")
