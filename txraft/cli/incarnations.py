"""`txraft incarnations`: what a stopped node knows of the other members' data."""

from __future__ import annotations

from pathlib import Path

import click

from txraft.cli.offline import opened
from txraft.cli.output import Output
from txraft.cli.running import offline
from txraft.node.incarnations import (
    INCARNATION,
    KNOWN_INCARNATIONS,
    VOID,
    decode_known,
    pardon_all,
)
from txraft.storage.directory import DataDirectory
from txraft.storage.stores import open_stores


@click.command("incarnations")
@click.argument(
    "data_dir", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--relearn",
    is_flag=True,
    help="Forget the others, also which are void, and learn them anew at the start.",
)
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")
@offline
def incarnations(output: Output, data_dir: Path, relearn: bool, yes: bool) -> None:
    """Show which incarnation of each member the stopped node in DATA_DIR knows.

    A member that comes with another one is refused, and so is one that is void: it has
    forgotten what it promised. The way back is to remove it, empty its data directory
    and add it again.

    --relearn is for members that refuse each other although none has lost data, so that
    there is no leader who could remove any: because of a stranger on their network, for
    example. Stop all members, do it on each, and start them. If one of them has lost
    data after all, acknowledged writes may be lost with it.
    """
    with opened(data_dir) as stores:
        own = stores.stable.get(INCARNATION)
        known = decode_known(stores.stable.get(KNOWN_INCARNATIONS))
        snapshots = stores.snapshots.list()
        last = max([stores.log.last_index(), *(meta.index for meta in snapshots)])
        name, kind = stores.name, stores.kind
    if output.as_json:
        output.json(
            {
                "node": name,
                "incarnation": own.hex(),
                "known": {
                    peer: {
                        "incarnation": each.removeprefix(VOID).hex(),
                        "void": each.startswith(VOID),
                    }
                    for peer, each in sorted(known.items())
                },
            }
        )
    output.line(f"{name}  {own.hex() or 'none'}  (this node)")
    for peer, each in sorted(known.items()):
        void = "  void: it is refused" if each.startswith(VOID) else ""
        output.line(f"{peer}  {each.removeprefix(VOID).hex()}{void}")
    if not relearn:
        return
    if not yes:
        output.line("Nothing was changed. Repeat with --yes to do it.")
        return
    directory = DataDirectory(data_dir, name)
    try:
        held = open_stores(kind, directory, name)
        try:
            pardon_all(held.stable, last)
        finally:
            held.close()
    finally:
        directory.close()
    output.line("Done: this node learns the others' anew when it starts.")
