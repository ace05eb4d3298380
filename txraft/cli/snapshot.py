"""`txraft snapshot`: save, inspect and restore backups of the whole state."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txraft.cli.archive import Backup, inspect_backup
from txraft.cli.files import create_file
from txraft.cli.output import Output, size_text
from txraft.cli.running import CommandJob, offline, online
from txraft.client.exchange import FileBody, NodeRequest

PATIENCE = 600.0


@click.group("snapshot")
def snapshot() -> None:
    """Back up and restore the whole state."""


@snapshot.command("save")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--stale", is_flag=True, help="Accept a state that may be old.")
@online
async def save(job: CommandJob, file: Path, stale: bool) -> None:
    """Write a consistent backup of the whole state to FILE.

    The backup gets its name only after it was checked, so FILE is complete or absent.
    """
    unfinished = file.with_name(file.name + ".unfinished")
    query = "?stale=1" if stale else ""
    unfinished.unlink(missing_ok=True)  # of a backup that was cut short
    try:
        # It will hold all keys: for its owner alone from the first moment.
        with create_file(unfinished, 0o600) as stream:
            await _download(job, f"/v1/snapshot{query}", stream)
            stream.flush()
            os.fsync(stream.fileno())
        backup = inspect_backup(unfinished)
        # Checked and synced before: a backup that is there can be restored.
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    show(job.output, file, backup)


@snapshot.command("inspect")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@offline
def inspect(output: Output, file: Path) -> None:
    """Check every byte of the backup in FILE, and show its contents."""
    show(output, file, inspect_backup(file))


@snapshot.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@online
async def restore(job: CommandJob, file: Path, yes: bool) -> None:
    """Replace the state of the whole cluster by the backup in FILE.

    The membership stays as it is. Everything written since the backup is lost.
    """
    # First of all, so that a damaged file changes nothing and asks nothing.
    backup = inspect_backup(file)
    if not yes:
        click.confirm(
            f"Replace all keys of the cluster by those of {file} (index "
            f"{backup.index})?",
            abort=True,
            err=True,
        )
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size

        def read(offset: int, size: int) -> Deferred[bytes]:
            return deferLater(job.reactor, 0, os.pread, stream.fileno(), size, offset)

        with job.output.progress("restoring", size) as bar:
            body = FileBody(size, read, bar.update)
            request = NodeRequest("PUT", "/v1/snapshot", body, patience=PATIENCE)
            await job.client.calls.expect(request)
    if job.output.as_json:
        job.output.json(True)
    job.output.line(f"Restored {file}: {backup.keys} keys.")


def show(output: Output, file: Path, backup: Backup) -> None:
    """Print the contents of *backup*."""
    if output.as_json:
        output.json({"file": str(file), **asdict(backup)})
    output.table(
        ("FILE", "INDEX", "TERM", "STATE", "KEYS", "MEMBERS"),
        [
            (
                file,
                backup.index,
                backup.term,
                size_text(backup.state_bytes),
                backup.keys,
                ", ".join(backup.members),
            )
        ],
    )


async def _download(job: CommandJob, target: str, stream: IO[bytes]) -> None:
    received = 0
    with job.output.progress("saving", 0) as bar:

        def consume(data: bytes) -> None:
            nonlocal received
            received += len(data)
            stream.write(data)
            bar.label = f"saving {size_text(received)}"
            bar.update(0)

        # Not repeatable: a second attempt would write behind the bytes of the first.
        request = NodeRequest("GET", target, consume=consume, patience=PATIENCE)
        await job.client.calls.expect(request)
