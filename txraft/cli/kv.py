"""`txraft kv`: read, write, watch, export and import keys."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Any

import click

from txraft.cli.exits import Exit
from txraft.cli.output import printable
from txraft.cli.running import CommandJob, online
from txraft.client import KeyValue, Operation

MAX_OPERATIONS = 64
MAX_BATCH_BYTES = 256 << 10


@click.group()
def kv() -> None:
    """Read and write keys."""


@kv.command("get")
@click.argument("key")
@click.option("--stale", is_flag=True, help="Accept a value that may be old.")
@online
async def get(job: CommandJob, key: str, stale: bool) -> int:
    """Print the value of KEY, byte for byte."""
    record = await job.client.get(key, stale=stale)
    if record is None:
        job.output.problem(f"txraft: there is no key {key!r}")
        return Exit.NO
    if job.output.as_json:
        job.output.json(as_json(record))
    else:
        job.output.value(record.value)
    return Exit.OK


@kv.command("put")
@click.argument("key")
@click.argument("value", required=False, default="-")
@click.option(
    "--flags",
    type=click.IntRange(0, (1 << 64) - 1),
    default=0,
    help="A number to keep with the value.",
)
@click.option(
    "--cas",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Only if KEY was last changed at INDEX; 0: if it is absent.",
)
@online
async def put(
    job: CommandJob, key: str, value: str, flags: int, cas: int | None
) -> int:
    """Write VALUE to KEY.

    VALUE is the text itself, @FILE for the content of a file, or - for standard
    input, which is also read if VALUE is left out.
    """
    written = await job.client.put(key, content(value), flags=flags, cas=cas)
    return _told(job, written, f"{key!r} was changed since index {cas}")


@kv.command("delete")
@click.argument("key")
@click.option("--recurse", is_flag=True, help="Delete every key that begins with KEY.")
@click.option(
    "--cas",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Only if KEY was last changed at INDEX.",
)
@online
async def delete(job: CommandJob, key: str, recurse: bool, cas: int | None) -> int:
    """Delete KEY; it need not exist."""
    deleted = await job.client.delete(key, recurse=recurse, cas=cas)
    return _told(job, deleted, f"{key!r} was changed since index {cas}")


@kv.command("list")
@click.argument("prefix", default="")
@click.option(
    "--separator",
    "-s",
    default="",
    help="List names only up to the next separator, like a directory.",
)
@click.option(
    "--long", "-l", is_flag=True, help="Show indexes, flags, sizes and locks."
)
@click.option("--stale", is_flag=True, help="Accept a list that may be old.")
@online
async def list_keys(
    job: CommandJob, prefix: str, separator: str, long: bool, stale: bool
) -> None:
    """List the keys that begin with PREFIX."""
    if long:
        records = await job.client.tree(prefix, stale=stale)
        _list_long(job, records)
        return
    keys = await job.client.keys(prefix, separator, stale=stale)
    if job.output.as_json:
        job.output.json(keys)
    for key in keys:
        job.output.key(key)


@kv.command("watch")
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Watch every key that begins with KEY.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many states.")
@online
async def watch(job: CommandJob, key: str, prefix: bool, count: int | None) -> None:
    """Print the state of KEY, and print it again whenever it changes.

    With --json each state is one line.
    """
    seen = 0
    states: Any = job.client.watch_prefix(key) if prefix else job.client.watch(key)
    async for state in states:
        _show_state(job, state)
        seen += 1
        # Only when the last state was shown: to ask for one more would wait for a
        # change.
        if seen == count:
            return


@kv.command("export")
@click.argument("prefix", default="")
@online
async def export(job: CommandJob, prefix: str) -> None:
    """Print all keys that begin with PREFIX as JSON.

    Values are in base64: `txraft kv import` and `consul kv import` read it.
    """
    records = await job.client.tree(prefix)
    exported = [
        {
            "key": record.key,
            "flags": record.flags,
            "value": b64encode(record.value).decode("ascii"),
        }
        for record in records
    ]
    job.output.document(exported, "\t")


@kv.command("import")
@click.argument("source", default="-")
@click.option("--prefix", default="", help="Put this before every key.")
@online
async def import_keys(job: CommandJob, source: str, prefix: str) -> None:
    """Write the keys of an export.

    SOURCE is a file, also as @FILE, or - for standard input. `txraft kv export` and
    `consul kv export` make it. Existing keys of the export are overwritten; other keys
    stay as they are. Importing twice does no harm.
    """
    if source != "-" and not source.startswith("@"):
        source = f"@{source}"
    operations = parse_export(content(source), prefix)
    with job.output.progress("importing", len(operations)) as bar:
        for batch in batches(operations):
            # Repeatable: every operation sets a key to a value of the file.
            await job.client.txn(*batch, repeatable=True)
            bar.update(len(batch))
    if job.output.as_json:
        job.output.json({"imported": len(operations)})
    job.output.line(f"Imported {len(operations)} keys.")


def content(value: str) -> bytes:
    """Return the bytes that *value* names: its text, a file or standard input.

    Raises: click.UsageError
    """
    if value == "-":
        return sys.stdin.buffer.read()
    if not value.startswith("@"):
        # Arguments that are not UTF-8 arrive as surrogates: they go out as they came.
        return value.encode("utf-8", "surrogateescape")
    try:
        with open(value[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise click.UsageError(f"{value[1:]}: {error.strerror}") from error


def parse_export(data: bytes, prefix: str) -> list[Operation]:
    """Read an export. Raises: click.UsageError"""
    try:
        listed = json.loads(data)
        if not isinstance(listed, list):
            raise ValueError("it is no list")
        return [
            Operation.set(
                prefix + each["key"],
                # An empty value may be written as null.
                b64decode(each["value"] or "", validate=True),
                int(each.get("flags", 0)),
            )
            for each in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError, Base64Error) as error:
        raise click.UsageError(
            "this is not an export: it must be a JSON list of objects with key, flags "
            f"and value, in base64 ({error})"
        ) from error


def batches(operations: list[Operation]) -> Iterator[list[Operation]]:
    """Split *operations* into transactions of a size that a node accepts."""
    batch: list[Operation] = []
    size = 0
    for operation in operations:
        length = len(operation.key) + len(operation.value or b"")
        # A value that is too large by itself goes alone: the node then says so, by its
        # own limits.
        if batch and (len(batch) == MAX_OPERATIONS or size + length > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += length
    if batch:
        yield batch


def as_json(record: KeyValue) -> dict[str, object]:
    """Return *record* in the form of the HTTP API."""
    shaped: dict[str, object] = {
        "Key": record.key,
        "Value": b64encode(record.value).decode("ascii"),
        "Flags": record.flags,
        "CreateIndex": record.create_index,
        "ModifyIndex": record.modify_index,
        "LockIndex": record.lock_index,
    }
    if record.session is not None:
        shaped["Session"] = record.session
    return shaped


def _told(job: CommandJob, done: bool, otherwise: str) -> int:
    if job.output.as_json:
        job.output.json(done)
    if not done:
        job.output.problem(f"txraft: nothing was done: {otherwise}")
    return Exit.OK if done else Exit.NO


def _list_long(job: CommandJob, records: list[KeyValue]) -> None:
    if job.output.as_json:
        job.output.json([as_json(record) for record in records])
    headings = ("KEY", "BYTES", "FLAGS", "CREATED", "CHANGED", "LOCKS", "SESSION")
    rows = [
        (
            r.key,
            len(r.value),
            r.flags,
            r.create_index,
            r.modify_index,
            r.lock_index,
            r.session,
        )
        for r in records
    ]
    job.output.table(headings, rows)


def _show_state(job: CommandJob, state: KeyValue | list[KeyValue] | None) -> None:
    if job.output.as_json:
        shaped = (
            [as_json(record) for record in state]
            if isinstance(state, list)
            else state and as_json(state)
        )
        job.output.document(shaped)
    elif isinstance(state, list):
        job.output.line(f"-- {len(state)} keys")
        for record in state:
            key = printable(record.key, "") if job.output.is_terminal else record.key
            job.output.line(f"{key}\t{record.value.decode('utf-8', 'replace')}")
    elif state is None:
        job.output.line("-- absent")
    else:
        job.output.line(state.value.decode("utf-8", "replace"))
    # At each state: a pipe would hold it back until its buffer is full, and the next
    # change may be days away.
    sys.stdout.flush()
