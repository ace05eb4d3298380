"""`Shutdown`: stop a node that serves HTTP, in an order that cuts no request.

1. *Drain.* ``/readyz`` fails, each answer is the last one of its connection, blocking
   queries are dropped.
2. *Transfer leadership*, so that the cluster has a leader at once. Requests that arrive
   meanwhile wait for that leader and go there.
3. *Wait* until all clients that were connected have gone; they and new ones are served.
4. *Accept no more.* New clients are refused, which tells them to go elsewhere.
5. *Wait* until those that came meanwhile have gone, too.
6. *Stop Raft.* Only now can the node serve no longer.

Steps 1 to 5 take at most `drain_timeout`. A client that is still there then is told
that nothing was applied, or that the outcome is unknown. All clients are told so at
once if the node cannot serve any more because its Raft stopped by itself, or if a
second signal asks it to hurry.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater

from txraft.embedding.member import LeavingRaft, give_up_leadership
from txraft.errors import RaftError
from txraft.http.acceptance import stop_accepting
from txraft.http.limits import HTTPLimits

LAST_WORDS_SECONDS = 0.5
"""Seconds for clients that were not served in time to read the reason."""


class StoppableRaft(LeavingRaft, Protocol):
    """The part of `Raft` that `Shutdown` uses."""

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Fire when the node begins to stop."""

    def shutdown(self) -> Deferred[None]:
        """Stop; the Deferred fires when all that was written is durable."""


class DrainableSite(Protocol):
    """The part of `KVSite` that `Shutdown` uses."""

    def drain(self) -> None:
        """Make each answer the last of its connection, and end blocking queries.

        None waits on these connections any more. On new ones they wait until the next
        call.
        """

    def when_left(self) -> Deferred[None]:
        """Fire when all clients that were connected at the last `drain` have gone."""

    def when_empty(self) -> Deferred[None]:
        """Fire when no client is connected."""

    def close(self) -> None:
        """Answer each further request with the reason why it is not served."""

    def cut(self) -> None:
        """Close every connection that is left, at once."""


class Shutdown:
    """Stops *raft* and the *site* that *port* leads to; it runs once."""

    def __init__(
        self,
        raft: StoppableRaft,
        site: DrainableSite,
        port: IListeningPort,
        clock: IReactorTime,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._site = site
        self._port = port
        self._clock = clock
        self._limits = limits
        self._until = 0.0
        self._hurries = False
        self._wait: Deferred[None] | None = None

    async def run(self) -> None:
        """Run the six steps. Durable: all that was written."""
        self._until = self._clock.seconds() + self._limits.drain_timeout
        self._raft.when_stopping().addCallback(lambda _: self.hurry())
        await self._drain()
        self._site.close()
        await self._raft.shutdown()
        # Raft has just failed the proposals that were pending: their answers are known
        # now, and have yet to be sent.
        await self._at_most(self._site.when_empty(), LAST_WORDS_SECONDS)
        self._site.cut()

    def hurry(self) -> None:
        """Stop waiting for clients; idempotent."""
        self._hurries = True
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    async def _drain(self) -> None:
        # First of all: until clients are told to go, they come back to this node.
        self._site.drain()
        await give_up_leadership(self._raft, self._clock)
        # Load balancers look at /readyz every few seconds: the node goes on accepting
        # for `drain_wait`, counted from the begin of the drain.
        least = self._limits.drain_wait - self._limits.drain_timeout
        await self._in_time(deferLater(self._clock, max(0.0, self._left() + least)))
        await self._in_time(self._site.when_left())
        await stop_accepting(self._port, self._clock)
        # Once more, for blocking queries on new connections: they would wait for
        # minutes. As nothing is accepted any more, they cannot come back here again.
        self._site.drain()
        await self._in_time(self._site.when_empty())

    def _left(self) -> float:
        return self._until - self._clock.seconds()

    async def _in_time(self, wait: Deferred[None]) -> None:
        """Wait for *wait* until the deadline; not at all after `hurry`."""
        self._wait = wait
        await self._at_most(wait, 0.0 if self._hurries else max(0.0, self._left()))
        self._wait = None

    async def _at_most(self, wait: Deferred[None], seconds: float) -> None:
        try:
            await wait.addTimeout(seconds, self._clock)
        except (TimeoutError, CancelledError):
            return
