"""`txraft demo`: run a cluster on this machine, to try things out."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from twisted.internet.defer import Deferred, DeferredList, race
from twisted.internet.task import deferLater

from txraft.cli.exits import Exit
from txraft.cli.lock import Child
from txraft.cli.output import Output
from txraft.cli.running import ReactorRunner, Runner
from txraft.client import Client, ClientError

TWISTD = "from twisted.scripts.twistd import run; run()"
PORTS = range(21000, 31000)
START_TIMEOUT = 30.0
GRACE = 6.0


@dataclass(frozen=True, slots=True)
class DemoNode:
    """One node of the demo."""

    name: str
    peer_port: int
    http_port: int

    @property
    def address(self) -> str:
        """Its peer address."""
        return f"127.0.0.1:{self.peer_port}"

    @property
    def url(self) -> str:
        """The URL of its HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"


@click.command("demo")
@click.option(
    "--nodes",
    type=click.IntRange(1, 7),
    default=3,
    show_default=True,
    help="How many nodes to start.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep data and logs there; without it they are removed at the end.",
)
@click.pass_context
def demo(context: click.Context, nodes: int, directory: Path | None) -> None:
    """Start a cluster on loopback; Ctrl-C stops it.

    It prints the addresses of the nodes, and commands to try.
    """
    runner: Runner = context.obj or ReactorRunner()
    with _place(directory) as place:
        members = plan(nodes, free_ports(2 * nodes))

        async def main(reactor: Any) -> int:
            return await run_demo(reactor, Output(), place, members)

        status = runner.run(main)
    context.exit(Exit.OK if status == Exit.INTERRUPTED else status)


async def run_demo(
    reactor: Any, output: Output, place: Path, members: list[DemoNode]
) -> int:
    """Run *members* with their files in *place*, until this is cancelled.

    Returns: an exit status, if a node ends by itself.
    """
    children = [_start(reactor, place, member, members) for member in members]
    try:
        led: Deferred[Any] = Deferred.fromCoroutine(_led(reactor, members))
        ended: Deferred[Any] = _first_to_end(children)
        first, leader = await race([led, ended])
        if first == 0:
            _welcome(output, place, members, leader)
            await _first_to_end(children)
        output.problem(
            f"txraft: a node has ended. Its log is in {place}, which is kept if it is "
            "named with --directory"
        )
        return Exit.NO
    finally:
        # All are told first and waited for afterwards, so that they stop at the same
        # time.
        for child in children:
            if not child.exit.called:
                child.exit.addErrback(lambda _: None)
                child.exit.cancel()
        await DeferredList([child.ended for child in children])


def _first_to_end(children: list[Child]) -> Deferred[int]:
    first: Deferred[int] = Deferred()

    def ended(status: int) -> int:
        if not first.called:
            first.callback(status)
        return status

    for child in children:
        child.ended.addCallback(ended)
    return first


def plan(nodes: int, ports: list[int]) -> list[DemoNode]:
    """Give a name and two of *ports* to each of so many *nodes*."""
    return [DemoNode(f"n{i + 1}", ports[2 * i], ports[2 * i + 1]) for i in range(nodes)]


def settings_of(member: DemoNode, members: list[DemoNode]) -> str:
    """Return the settings of *member* as YAML."""
    peers = ", ".join(each.address for each in members)
    return (
        f"data_dir: {member.name}\n"
        f"listen: tcp:{member.peer_port}:interface=127.0.0.1\n"
        f"peers: [{peers}]\n"
        "http:\n"
        f"  listen: tcp:{member.http_port}:interface=127.0.0.1\n"
    )


def free_ports(count: int) -> list[int]:
    """Find ports of 127.0.0.1 that are not in use.

    Raises: click.ClickException
    """
    found = []
    candidates = list(PORTS)
    # Two demos that start at once would else choose the same ports: a port is free
    # again from this check until its node binds it.
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise click.ClickException("no free ports are left on 127.0.0.1")


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.resolve()
        return
    with TemporaryDirectory(prefix="txraft-demo-") as made:
        yield Path(made)


def _start(
    reactor: Any, place: Path, member: DemoNode, members: list[DemoNode]
) -> Child:
    config = place / f"{member.name}.yaml"
    config.write_text(settings_of(member, members))
    # Not the script `twistd`, which may be missing from PATH or be of another Python.
    command = [
        *(sys.executable, "-c", TWISTD, "-n", "--pidfile="),
        *("--logfile", str(place / f"{member.name}.log")),
        *("raft", "--config", str(config)),
    ]
    child = Child(reactor, GRACE)
    reactor.spawnProcess(child, command[0], command, os.environ, path=str(place))
    return child


async def _led(reactor: Any, members: list[DemoNode]) -> str:
    """Wait for a leader; return its peer address, "" after `START_TIMEOUT`."""
    until = reactor.seconds() + START_TIMEOUT
    async with Client([member.url for member in members], reactor) as client:
        while True:
            try:
                told = await client.leader()
            except ClientError:
                told = ""
            if told or reactor.seconds() >= until:
                return told
            await deferLater(reactor, 0.1)


def _welcome(output: Output, place: Path, members: list[DemoNode], leader: str) -> None:
    rows = [
        (m.name, m.url, m.address, "leader" if m.address == leader else "")
        for m in members
    ]
    output.table(("NODE", "HTTP", "PEERS", ""), rows)
    output.line()
    output.line(f"Data and logs are in {place}. Try, in another terminal:")
    output.line()
    output.line(f"  export TXRAFT_HTTP_ADDR={','.join(m.url for m in members)}")
    output.line("  txraft status")
    output.line("  txraft kv put greeting hello")
    output.line("  txraft kv get greeting")
    output.line("  txraft transfer")
    output.line()
    output.line("Ctrl-C stops the nodes.")
    sys.stdout.flush()
