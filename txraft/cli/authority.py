"""`txraft tls`: make an authority and certificates for a test cluster."""

from __future__ import annotations

from pathlib import Path

import click

from txraft.cli.certificates import (
    CA_DAYS,
    NODE_DAYS,
    init_authority,
    issue_certificate,
    renew_certificate,
)
from txraft.errors import ConfigError

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("tls"),
    show_default=True,
    help="Directory of the authority and its certificates.",
)


@click.group()
def tls() -> None:
    """Make certificates for a test cluster.

    In production the authority's key must not lie on a node: use the authority of your
    organisation.
    """


@tls.command("init")
@_directory
@click.option("--days", type=click.IntRange(1), default=CA_DAYS, show_default=True)
def init(directory: Path, days: int) -> None:
    """Make an authority."""
    try:
        certificate, key = init_authority(directory, days)
    except ConfigError as error:
        raise click.ClickException("\n".join(error.problems)) from error
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
@click.option("--days", type=click.IntRange(1), default=NODE_DAYS, show_default=True)
def issue(
    names: tuple[str, ...], directory: Path, client: bool, renew: bool, days: int
) -> None:
    """Issue a certificate for NAMES: host names and IP addresses of one node."""
    if client and renew:
        raise click.UsageError("--renew keeps what the certificate is for")
    try:
        if renew:
            path, end = renew_certificate(directory, names, days=days)
            click.echo(f"{path}  lasts until {end:%Y-%m-%d}; the key is the same")
            click.echo(
                "put it in the place of the node's tls.certificate, then let the "
                "running node reread it: kill -HUP PID, or systemctl reload"
            )
            return
        certificate, key = issue_certificate(
            directory, names, client_only=client, days=days
        )
    except ConfigError as error:
        raise click.ClickException("\n".join(error.problems)) from error
    click.echo(f"{certificate}  tls.certificate")
    click.echo(f"{key}  tls.private_key")
