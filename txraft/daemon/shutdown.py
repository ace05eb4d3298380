"""Stopping a node that serves HTTP, in an order in which no request is cut.

1. *Drain.* ``/readyz`` fails, each answer is the last one of its connection, blocking
   queries are dropped.
2. *Hand leadership over*, so that the cluster has a leader at once. What comes
   meanwhile waits for that, and goes there.
3. *Wait* until all who were connected have gone, serving them and whoever comes.
4. *Accept no more.* New clients are refused, which tells them to go elsewhere.
5. *Wait* until those who came meanwhile have gone, too.
6. *Stop Raft.* Only now does the node lose the means to serve.

All of 1 to 5 takes at most `drain_timeout`. Who is still there then is told that
nothing was applied, or that the outcome is unknown. So is everybody at once if the node
cannot serve any more, because its Raft has stopped by itself, or if whoever stops it
loses patience.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txraft.core.configuration import Configuration
from txraft.errors import RaftError
from txraft.http.acceptance import stop_accepting
from txraft.http.limits import HTTPLimits
from txraft.node.events import RaftState

HANDOVER_TIMEOUT = 1.5
"""Seconds that handing leadership over may take."""

LAST_WORDS_SECONDS = 0.5
"""How long those who were not served in time may take to read why."""


class Led(Protocol):
    """What a `Shutdown` needs of `Raft`."""

    @property
    def address(self) -> str:
        """The address of this node."""

    @property
    def state(self) -> RaftState:
        """What this node is doing."""

    @property
    def configuration(self) -> Configuration:
        """The members as this node knows them."""

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        """Hand leadership over; fails with RaftError."""

    def when_stopping(self) -> Deferred[RaftError | None]:
        """Fire when the node begins to stop."""

    def shutdown(self) -> Deferred[None]:
        """Take no part any more; fires when all that was written is durable."""


class Served(Protocol):
    """What a `Shutdown` needs of a `KVSite`."""

    def drain(self) -> None:
        """Ask clients to go, and drop those that wait for a change."""

    def when_left(self) -> Deferred[None]:
        """Fire when all who were connected when the first `drain` began have gone."""

    def when_empty(self) -> Deferred[None]:
        """Fire when nobody is connected."""

    def close(self) -> None:
        """Serve nobody any longer than it takes to say why not."""

    def cut(self) -> None:
        """Cut every connection that is left."""


class Shutdown:
    """Stops *raft* and the *site* that *port* leads to; it runs once."""

    log = Logger()

    def __init__(
        self,
        raft: Led,
        site: Served,
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
        """Do it. Durable: all that was written."""
        self._until = self._clock.seconds() + self._limits.drain_timeout
        self._raft.when_stopping().addCallback(lambda _: self.hurry())
        await self._drain()
        self._site.close()
        await self._raft.shutdown()
        # What Raft has just let go of has its answer now, which has yet to be sent.
        await self._at_most(self._site.when_empty(), LAST_WORDS_SECONDS)
        self._site.cut()

    def hurry(self) -> None:
        """Wait no longer for clients; idempotent."""
        self._hurries = True
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    async def _drain(self) -> None:
        # Clients are told to go before anything else: until then they come again.
        self._site.drain()
        await hand_over(self._raft, self._clock)
        least = self._limits.drain_wait - self._limits.drain_timeout
        await self._in_time(deferLater(self._clock, max(0.0, self._left() + least)))
        await self._in_time(self._site.when_left())
        await stop_accepting(self._port, self._clock)
        # Blocking queries that came again would wait for minutes. Now they find no way
        # back to this node.
        self._site.drain()
        await self._in_time(self._site.when_empty())

    def _left(self) -> float:
        return self._until - self._clock.seconds()

    async def _in_time(self, wait: Deferred[None]) -> None:
        """Wait for *wait*, but not beyond the deadline, nor in a hurry."""
        self._wait = wait
        await self._at_most(wait, 0.0 if self._hurries else max(0.0, self._left()))
        self._wait = None

    async def _at_most(self, wait: Deferred[None], seconds: float) -> None:
        try:
            await wait.addTimeout(seconds, self._clock)
        except (TimeoutError, CancelledError):
            return


async def hand_over(raft: Led, clock: IReactorTime) -> None:
    """Let the others have a leader at once, instead of after an election."""
    if raft.state is not RaftState.LEADER:
        return
    others = [voter for voter in raft.configuration.voters if voter != raft.address]
    if not others:
        return
    handed = raft.transfer_leadership()
    try:
        await handed.addTimeout(HANDOVER_TIMEOUT, clock)
    except (RaftError, TimeoutError) as error:
        Shutdown.log.info("Leadership was not handed over: {why}", why=str(error))
