"""`txraft incarnations`: show or forget the members' incarnations that a node knows."""

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
    help="Forget those of the others, void ones too; the next start learns them anew.",
)
@click.option("--yes", is_flag=True, help="Do it. Without this nothing is changed.")
@offline
def incarnations(output: Output, data_dir: Path, relearn: bool, yes: bool) -> None:
    """Show the incarnations that a stopped node knows.

    DATA_DIR is the node's data directory. An incarnation names the data of a member. A
    member with another incarnation than the known one, or with a void one, is refused:
    it has lost its votes or its log. Remove it, empty its data directory and add it
    again.

    --relearn is for members that refuse each other although none has lost data, for
    example because of a stranger on their network, so that no leader can remove any.
    Stop all members, run it for each, and start them. If one of them has lost data
    after all, acknowledged writes may be lost with it.
    """
    # Reading comes first and changes nothing; it also holds the lock, which is given
    # back before the stores are opened again to be written.
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
    output.line("Done: this node learns those of the others anew when it starts.")
