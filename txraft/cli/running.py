"""Run a command: give it a client and a reactor, and turn its end into an exit status.

A command is a coroutine function of a `CommandJob`; `online` and `offline` make click
commands of functions. A `Runner` runs it; a test puts its own into click's context
object.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import IO, Any, Protocol, cast

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txraft.addresses import normal_url
from txraft.cli.exits import Exit, exit_of
from txraft.cli.output import Output
from txraft.client import Client, ClientError, ClientLimits, ClientTLS
from txraft.clock import use_monotonic_time
from txraft.errors import RaftError

DEFAULT_ADDRESS = "http://127.0.0.1:8500"

Main = Callable[[Any], Coroutine[Deferred[Any], Any, int]]
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class CommandJob:
    """The client, output and reactor of one run of a command."""

    client: Client
    output: Output
    reactor: Any
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The token and the TLS files of a client."""

    token: str | None
    tls: ClientTLS


class Runner(Protocol):
    """Runs a command."""

    def run(self, main: Main) -> int:
        """Call *main* with a reactor, run it to its end, and return its exit status."""

    def client(
        self,
        urls: list[str],
        reactor: Any,
        access: ClientCredentials,
        limits: ClientLimits,
    ) -> Client:
        """Make a client for the nodes at *urls*."""


class ReactorRunner:
    """Runs a command on the reactor of this process.

    An interrupt cancels the command and waits until it has cleaned up: a lock must be
    given back, and a child process must end.
    """

    def run(self, main: Main) -> int:
        """Run *main* to its end; return its exit status."""
        from twisted.internet import reactor as installed

        reactor = cast(Any, installed)
        use_monotonic_time(cast(IReactorTime, reactor))
        statuses: list[int | Failure] = []

        def begin() -> None:
            running = Deferred.fromCoroutine(main(reactor))
            reactor.addSystemEventTrigger("before", "shutdown", interrupt, running)
            running.addBoth(statuses.append)
            # A second stop would raise: an interrupt has stopped the reactor already.
            running.addBoth(lambda _: reactor.stop() if not stopping else None)

        def interrupt(running: Deferred[int]) -> Deferred[int] | None:
            stopping.append(True)
            # The command has ended by itself, and its end has stopped the reactor.
            if statuses:
                return None
            running.cancel()
            return running  # "before shutdown": the reactor waits until it has fired

        stopping: list[bool] = []
        reactor.callWhenRunning(begin)
        reactor.run()
        status = statuses[0] if statuses else Exit.INTERRUPTED
        if isinstance(status, Failure):
            if status.check(CancelledError):
                return Exit.INTERRUPTED
            status.raiseException()
        return status

    def client(
        self,
        urls: list[str],
        reactor: Any,
        access: ClientCredentials,
        limits: ClientLimits,
    ) -> Client:
        """Make a client with connections of its own."""
        return Client(urls, reactor, token=access.token, tls=access.tls, limits=limits)


_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON, for machines."
)
_ONLINE = (
    click.option(
        "--http-addr",
        "-a",
        "addresses",
        multiple=True,
        envvar="TXRAFT_HTTP_ADDR",
        metavar="URL",
        help="HTTP address of a node; repeat it, or separate several by commas. "
        f"[env: TXRAFT_HTTP_ADDR; default: {DEFAULT_ADDRESS}]",
    ),
    click.option(
        "--token-file",
        type=click.File("r"),
        envvar="TXRAFT_HTTP_TOKEN_FILE",
        help="File with the token to send; a command line would be visible to others. "
        "[env: TXRAFT_HTTP_TOKEN_FILE, or the token itself in TXRAFT_HTTP_TOKEN]",
    ),
    click.option(
        "--ca-file",
        "ca",
        envvar="TXRAFT_CA_FILE",
        metavar="PEM",
        help="Authority of the nodes' certificates. [env: TXRAFT_CA_FILE]",
    ),
    click.option(
        "--certificate",
        envvar="TXRAFT_CERTIFICATE",
        metavar="PEM",
        help="Certificate to show to nodes. [env: TXRAFT_CERTIFICATE]",
    ),
    click.option(
        "--private-key",
        envvar="TXRAFT_PRIVATE_KEY",
        metavar="PEM",
        help="Its private key. [env: TXRAFT_PRIVATE_KEY]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=15.0,
        show_default=True,
        help="Seconds for a request with all its attempts.",
    ),
    _JSON,
)


def online(function: Callable[..., Awaitable[int | None]]) -> Function:
    """Make a coroutine function a command that talks to a cluster.

    It is called with a `CommandJob` and the command's own parameters, and returns an
    exit status, None for success.
    """

    def command(
        context: click.Context,
        addresses: tuple[str, ...],
        token_file: IO[str] | None,
        ca: str | None,
        certificate: str | None,
        private_key: str | None,
        timeout: float,
        as_json: bool,
        **parameters: Any,
    ) -> None:
        runner: Runner = context.obj or ReactorRunner()
        output = Output(as_json)
        urls = _split(addresses)
        token = os.environ.get("TXRAFT_HTTP_TOKEN")
        if token_file is not None:
            token = token_file.read().strip()

        # The files are read in here, where `_guarded` reports what is wrong with them.
        async def main(reactor: Any) -> int:
            access = ClientCredentials(token, ClientTLS(ca, certificate, private_key))
            limits = ClientLimits(timeout=timeout)
            async with runner.client(urls, reactor, access, limits) as client:
                job = CommandJob(client, output, reactor, client.calls.nodes.urls)
                return int(await function(job, **parameters) or Exit.OK)

        context.exit(_guarded(output, lambda: runner.run(main)))

    return _as_command(command, function, _ONLINE)


def offline(function: Callable[..., int | None]) -> Function:
    """Make a function of an `Output` a command that works on files."""

    def command(context: click.Context, as_json: bool, **parameters: Any) -> None:
        output = Output(as_json)
        context.exit(_guarded(output, lambda: function(output, **parameters)))

    return _as_command(command, function, (_JSON,))


def _as_command(
    command: Function, function: Function, options: tuple[Function, ...]
) -> Function:
    functools.update_wrapper(command, function)
    made: Function = click.pass_context(command)
    for option in reversed(options):
        made = option(made)
    return made


def _guarded(output: Output, work: Callable[[], int | None]) -> int:
    """Do *work*; report an error that the user can act on in one sentence."""
    try:
        return int(work() or Exit.OK)
    except BrokenPipeError:
        # The reader, such as `head`, has enough. Closed, so that the interpreter does
        # not complain of the same when it flushes at its exit.
        sys.stderr.close()
        return Exit.OK
    except ClientError as error:
        output.problem(f"txraft: {error}")
        return exit_of(error)
    except (RaftError, OSError) as error:
        output.problem(f"txraft: {error}")
        return Exit.REFUSED


def _split(addresses: tuple[str, ...]) -> list[str]:
    named = [part.strip() for text in addresses for part in text.split(",")]
    urls = [each for each in named if each] or [DEFAULT_ADDRESS]
    try:
        return [normal_url(url) for url in urls]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
