"""`txraft tls`: make an authority and certificates for a test cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from txraft.cli.certificates import (
    CA_DAYS,
    MAX_DAYS,
    NODE_DAYS,
    init_authority,
    issue_certificate,
    renew_certificate,
)
from txraft.errors import ConfigError

_Command = Callable[..., Any]

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("tls"),
    show_default=True,
    help="Directory of the authority and its certificates.",
)


def _days(default: int) -> Callable[[_Command], _Command]:
    return click.option(
        "--days",
        type=click.IntRange(1, MAX_DAYS),
        default=default,
        show_default=True,
        help="For how long it is valid.",
    )


@click.group()
def tls() -> None:
    """Make certificates for a test cluster.

    In production the authority's key must not lie on a node: use the authority of your
    organisation.
    """


@tls.command("init")
@_directory
@_days(CA_DAYS)
def init(directory: Path, days: int) -> None:
    """Make an authority."""
    with _explained(directory):
        certificate, key = init_authority(directory, days)
    click.echo(f"{certificate}  give it to every node, as tls.ca")
    click.echo(f"{key}  keep it secret: whoever has it can be any member")


@tls.command("issue")
@click.argument("names", nargs=-1, required=True)
@_directory
@click.option("--client", is_flag=True, help="For a client of HTTP, not for a node.")
@click.option(
    "--renew",
    is_flag=True,
    help="Replace the certificate of the first NAME by one that lasts longer; names, "
    "uses and key stay.",
)
@_days(NODE_DAYS)
def issue(
    names: tuple[str, ...], directory: Path, client: bool, renew: bool, days: int
) -> None:
    """Issue a certificate for one node or client.

    NAMES are the host names and IP addresses of a node, or the name of a client.
    """
    if client and renew:
        raise click.UsageError("--renew keeps what the certificate is for")
    if renew:
        with _explained(directory):
            path, end = renew_certificate(directory, names, days=days)
        click.echo(f"{path}  lasts until {end:%Y-%m-%d}; the key is the same")
        click.echo(
            "put it in the place of the node's tls.certificate, then let the "
            "running node reread it: kill -HUP PID, or systemctl reload"
        )
        return
    with _explained(directory):
        certificate, key = issue_certificate(
            directory, names, client_only=client, days=days
        )
    click.echo(f"{certificate}  tls.certificate")
    click.echo(f"{key}  tls.private_key")


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """End the command with a sentence on what goes wrong inside."""
    try:
        yield
    except ConfigError as error:
        raise click.ClickException("\n".join(error.problems)) from error
    except OSError as error:
        # A failed write, as to a full disk, does not tell of which file.
        place = error.filename or directory
        raise click.ClickException(
            f"{place}: {error.strerror}; give a place that can be written with --dir"
        ) from error
