"""The `txraft` command: the table of its subcommands, and its exit statuses.

`SECTIONS` is the table. `txraft --help` and the manual's page of commands
(`docs/commands_page.py`) are made from it. A subcommand is a function in the module of
its subject, whose decorator has its name and whose docstring is its help; its first
sentence is what `txraft --help` shows. A new one is that function, its place in the
table, and its tests in `tests/cli`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from txraft.cli.authority import tls
from txraft.cli.cluster import doctor, members, peer, status, transfer
from txraft.cli.demo import demo
from txraft.cli.incarnations import incarnations
from txraft.cli.kv import kv
from txraft.cli.lock import lock
from txraft.cli.log import log
from txraft.cli.recover import recover
from txraft.cli.snapshot import snapshot
from txraft.cli.txn import txn
from txraft.version import VERSION

EPILOG = (
    "Exit status: 0 done; 1 the answer is no, or a fault was found; 2 wrong usage; "
    "3 no node took the request, nothing was changed; 4 the outcome of a write is "
    "unknown; 5 the request was refused; 6 the lock was lost; 130 interrupted."
)


SECTIONS: Mapping[str, Sequence[click.Command]] = {
    "Keys": (kv, txn, lock),
    "The cluster": (members, status, doctor, transfer, peer),
    "Backups": (snapshot,),
    "A stopped node's files": (log, incarnations, recover),
    "Trying out and setting up": (demo, tls),
}
"""The subcommands by subject, in the order of the help."""


class _BySubject(click.Group):
    """A command whose help lists its subcommands as `SECTIONS` has them."""

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        width = max(len(name) for name in self.commands)
        limit = formatter.width - 6 - width
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{command.name:{width}}", command.get_short_help_str(limit))
                        for command in commands
                    ]
                )


@click.group(
    cls=_BySubject,
    commands=[command for commands in SECTIONS.values() for command in commands],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
@click.version_option(VERSION, prog_name="txraft")
def main() -> None:
    """Use and operate a txraft cluster.

    `txraft demo` starts one on this machine to try things out. Name nodes by their
    HTTP addresses, with --http-addr or in TXRAFT_HTTP_ADDR. One is enough, because
    every node serves every request.
    """
