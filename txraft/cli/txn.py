"""`txraft txn`: apply several operations at once, all or none."""

from __future__ import annotations

import json

import click

from txraft.cli.exits import Exit
from txraft.cli.kv import content
from txraft.cli.running import CommandJob, online
from txraft.client.exchange import NodeRequest
from txraft.client.results import parse_json


@click.command("txn")
@click.argument("source", default="-")
@online
async def txn(job: CommandJob, source: str) -> int:
    """Run a transaction, written in JSON as the HTTP API takes it.

    SOURCE is the JSON itself, @FILE, or - for standard input:

    \b
        txraft txn '[{"KV": {"Verb": "set", "Key": "a", "Value": "MQ=="}}]'

    Values are in base64. The results are printed as JSON. If one operation is refused,
    nothing is applied, the errors are printed, and the status is 1.
    """
    body = content(source)
    try:
        json.loads(body)
    except ValueError as error:
        raise click.UsageError(f"the transaction is not JSON: {error}") from error
    response = await job.client.calls.expect(NodeRequest("PUT", "/v1/txn", body), 409)
    job.output.json(parse_json(response.body))
    return Exit.NO if response.status == 409 else Exit.OK
