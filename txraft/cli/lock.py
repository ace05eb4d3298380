"""`txraft lock`: run a command only while its lock is held."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txraft.cli.exits import Exit
from txraft.cli.running import CommandJob, online
from txraft.client import Lock, LockLost, LockNotFree

INHERITED = {0: 0, 1: 1, 2: 2}
FENCE = "TXRAFT_LOCK_FENCE"
KEY = "TXRAFT_LOCK_KEY"


@click.command("lock", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    type=click.FloatRange(10, 86400),
    default=15.0,
    show_default=True,
    help="Seconds without contact to the cluster after which the lock is lost.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    help="Give up after so many seconds if the lock is held; 0 makes one attempt.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Seconds from SIGTERM to SIGKILL when the lock is lost.",
)
@click.option(
    "--lock-delay",
    type=click.FloatRange(0, 60),
    default=15.0,
    show_default=True,
    help="Seconds for which nobody gets the lock after it was lost.",
)
@online
async def lock(
    job: CommandJob,
    name: str,
    command: Sequence[str],
    ttl: float,
    wait: float | None,
    grace: float,
    lock_delay: float,
) -> int:
    """Run COMMAND while holding the lock on the key NAME.

    \b
        txraft lock jobs/nightly -- ./nightly.sh

    It waits until the lock is free. COMMAND finds a number in TXRAFT_LOCK_FENCE that
    grows with every holder. Whatever COMMAND writes to should refuse a smaller number
    than it has seen, because no lock can stop a process that was paused and wakes up
    too late. If the lock is lost, COMMAND gets SIGTERM, then SIGKILL, and the status is
    6. Otherwise the status is that of COMMAND, or 1 if the lock did not become free in
    time.
    """
    held = job.client.lock(name, _holder(), ttl=ttl, lock_delay=lock_delay)
    try:
        await held.acquire(wait)
    except LockNotFree as error:
        job.output.problem(f"txraft: {error}")
        return Exit.NO
    try:
        return await _run(job, held, command, grace)
    except LockLost as error:
        job.output.problem(f"txraft: {error}; the command was stopped")
        return Exit.LOST
    finally:
        await held.release()


async def _run(
    job: CommandJob, held: Lock, command: Sequence[str], grace: float
) -> int:
    environment = {**os.environ, FENCE: str(held.fence), KEY: held.key}
    child = Child(job.reactor, grace)
    job.reactor.spawnProcess(
        child, command[0], list(command), environment, childFDs=INHERITED
    )
    try:
        return await held.guard(child.exit)
    finally:
        # The lock is given back only when the command has ended: another holder would
        # else run beside it.
        await child.ended


def _holder() -> bytes:
    return f"{os.uname().nodename} process {os.getpid()}".encode()


class Child(ProcessProtocol):
    """A child process; `exit` fires with its status, and cancelling `exit` stops it.

    It then gets SIGTERM, and SIGKILL after *grace* seconds. `ended` fires with its
    status when it has ended, whatever became of `exit`.
    """

    transport: IProcessTransport

    def __init__(self, reactor: Any, grace: float) -> None:
        self._reactor = reactor
        self._grace = grace
        self._killing: IDelayedCall | None = None
        self.exit: Deferred[int] = Deferred(lambda _: self._stop())
        self.ended: Deferred[int] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        """Fire with the exit status, in the form of a shell."""
        if self._killing is not None:
            self._killing.cancel()
            self._killing = None
        status = status_of(reason)
        # It has fired already if it was cancelled, which is what stopped the child.
        if not self.exit.called:
            self.exit.callback(status)
        self.ended.callback(status)

    def _stop(self) -> None:
        self._signal("TERM")
        self._killing = self._reactor.callLater(self._grace, self._kill)

    def _kill(self) -> None:
        self._killing = None
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        try:
            self.transport.signalProcess(name)
        # A process may have ended before `processEnded` is called.
        except ProcessExitedAlready:
            return


def status_of(reason: Failure) -> int:
    """Return the exit status in *reason*; for a signal 128 plus its number."""
    ending = reason.value
    if isinstance(ending, ProcessTerminated) and ending.signal is not None:
        return 128 + int(ending.signal)
    return int(getattr(ending, "exitCode", None) or 0)
