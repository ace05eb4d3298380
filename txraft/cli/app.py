"""The `txraft` command: the table of its subcommands, and its exit statuses."""

from __future__ import annotations

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(VERSION, prog_name="txraft")
def main() -> None:
    """Use and operate a txraft cluster.

    `txraft demo` starts one on this machine to try things out. Name nodes by their
    HTTP addresses, with --http-addr or in TXRAFT_HTTP_ADDR. One is enough, because
    every node serves every request.
    """


_COMMANDS = (
    kv,
    txn,
    lock,
    members,
    status,
    doctor,
    transfer,
    peer,
    snapshot,
    log,
    recover,
    incarnations,
    demo,
    tls,
)
for _command in _COMMANDS:
    main.add_command(_command)
