"""Kernel syncs: fdatasync beside the reactor and without a thread, by Linux's own AIO.

A thread that syncs a file takes Python's lock from the reactor twice for each write.
Here the reactor thread hands the sync over and learns of its end as of any other event:
a tenth more commits with one in flight, a sixth more with 64 (`benchmarks.compare`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from caio.linux_aio import Context

MAX_IN_FLIGHT = 16
"""Syncs that may be under way; a node has one for its log."""


@implementer(IReadDescriptor)
class KernelSync:
    """Has the kernel sync files; *reactor* hears of the end of each.

    The package is loaded when this is made, before the node takes part: it tries out
    the kernel, which takes 40 ms. Nothing is opened before the first sync: a process
    that becomes a daemon in between would not take it along.
    """

    log = Logger()

    def __init__(self, reactor: object) -> None:
        self._reactor = cast(IReactorFDSet, reactor)
        self._context: Context | None = None
        self._unavailable = False
        self._under_way: set[Deferred[None]] = set()
        self._ended: list[tuple[Deferred[None], int]] = []
        self._closing: list[Deferred[None]] = []
        if not IReactorFDSet.providedBy(reactor):
            self._unavailable = True
            return
        try:
            from caio.linux_aio import Context, Operation
        except ImportError as error:
            self._give_up(error)
        else:
            self._make_context = partial(Context, MAX_IN_FLIGHT)
            self._make_sync = Operation.fdsync

    def sync_data(self, descriptor: int) -> Deferred[None] | None:
        """Make durable what was written to *descriptor*, as fdatasync does.

        Returns: a Deferred, which fails with OSError; None, and nothing was begun,
            where the kernel or the reactor cannot.
        """
        if self._unavailable or (self._context is None and not self._open()):
            return None
        assert self._context is not None, "it was opened"
        done: Deferred[None] = Deferred()
        operation = self._make_sync(descriptor)
        operation.set_callback(lambda result: self._ended.append((done, result)))
        try:
            self._context.submit(operation)
        except Exception as error:  # one for each errno; none is OSError
            # From here on the worker's thread makes the syncs, this one included.
            self._give_up(error)
            return None
        self._under_way.add(done)
        return done

    def _open(self) -> bool:
        try:
            self._context = self._make_context()
        except SystemError as error:  # whatever the errno
            self._give_up(error)
            return False
        self._reactor.addReader(self)
        return True

    def _give_up(self, error: Exception) -> None:
        self.log.info("A thread syncs the log, not the kernel: {error}", error=error)
        self._unavailable = True
        self._close_if_done()

    def close(self) -> Deferred[None]:
        """Finish what is under way and let go of the kernel's queue; idempotent."""
        self._unavailable = True
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        self._close_if_done()
        return closed

    def _close_if_done(self) -> None:
        if not self._unavailable or self._under_way:
            return
        if self._context is not None:
            self._reactor.removeReader(self)
            self._context = None
        closing, self._closing = self._closing, []
        for closed in closing:
            closed.callback(None)

    # IReadDescriptor

    def fileno(self) -> int:
        """Return the descriptor that is readable when a sync has ended."""
        return -1 if self._context is None else self._context.fileno

    def doRead(self) -> None:
        """Tell those whose syncs have ended."""
        assert self._context is not None, "it is read only while it is open"
        try:  # noqa: SIM105  # the cheaper way, at each sync
            self._context.poll()
        except BlockingIOError:
            pass  # ends may be fetched before they are told
        self._context.process_events()
        # Several may have ended with one wake-up; whoever is told may begin another.
        ended, self._ended = self._ended, []
        for done, result in ended:
            self._under_way.remove(done)
            done.callback(_failure(result) if result else None)
        if self._unavailable:
            self._close_if_done()

    def logPrefix(self) -> str:
        """Name this in the log."""
        return "KernelSync"

    def connectionLost(self, reason: Failure) -> None:
        """Fail all syncs: the reactor has dropped this."""
        self._unavailable = True
        under_way, self._under_way = self._under_way, set()
        for done in under_way:
            done.errback(reason)
        self._close_if_done()


def _failure(result: int) -> Failure:
    """Read an error of the kernel, which comes as an unsigned number of 64 bits."""
    number = -result & ((1 << 64) - 1)
    return Failure(OSError(number, os.strerror(number)))
