"""Advertise the URL where this node serves HTTP, through the replicated state.

The leader commits its own URL, which the other nodes need to forward requests to it. A
follower asks the leader to commit its URL, so that operators see every node from any
node.
"""

from __future__ import annotations

from urllib.parse import urlencode

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.addresses import normal_url
from txraft.client.exchange import NoAnswer, NotSent
from txraft.errors import ApplicationError, RaftError
from txraft.http.backend import RaftNode
from txraft.http.forward import Forwarder
from txraft.kv.commands import encode_advertise
from txraft.kv.state import KeyValueFSM
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState

PATH = "/v1/operator/raft/advertise"
RETRY_INTERVAL = 1.0
MAX_RETRY_INTERVAL = 60.0
ENQUEUE_TIMEOUT = 5.0


class Advertiser:
    """Keeps *url* in the replicated state as the HTTP address of this node.

    From level 1 of the state machine on it does the same with *name*. It checks the
    state at each new leader and each new level, and commits only what is missing. If
    the leader refuses or does not answer, it asks again, less and less often.
    """

    log = Logger()

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        forwarder: Forwarder,
        clock: IReactorTime,
        address: str,
        url: str,
        name: str = "",
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._forwarder = forwarder
        self._clock = clock
        self._address = address
        self._url = normal_url(url)
        self._name = "" if name == address else name
        self._observer = Observer(self._observed)
        self._running = False
        self._busy = False
        self._pause: tuple[Deferred[None], IDelayedCall] | None = None
        self._asking: Deferred[tuple[int, str]] | None = None

    def start(self) -> None:
        """Advertise now if there is a leader, and again at each new leader."""
        self._running = True
        self._raft.register_observer(self._observer)
        self._fsm.on_activate = self._activated
        self._begin()

    def stop(self) -> None:
        """Stop advertising; idempotent."""
        self._running = False
        self._raft.deregister_observer(self._observer)
        self._wake()
        if self._asking is not None:
            self._asking.cancel()

    def _observed(self, observation: Observation) -> None:
        if isinstance(observation.data, LeaderObservation | RaftState):
            self._begin()

    def _activated(self) -> None:
        """Check again in another turn, as this is called in the middle of applying."""
        self._clock.callLater(0, self._begin)

    def _begin(self) -> None:
        # One round at a time: a round that pauses is woken, and checks the state
        # itself.
        self._wake()
        if not self._busy and self._running and self._raft.leader is not None:
            self._busy = True
            advertised = Deferred.fromCoroutine(self._advertise())
            advertised.addErrback(self._gave_up).addCallback(self._ended)

    async def _advertise(self) -> None:
        pause = RETRY_INTERVAL
        while not await self._attempt() and self._running:
            await self._wait(pause)
            leads = self._raft.state is RaftState.LEADER
            pause = RETRY_INTERVAL if leads else min(2 * pause, MAX_RETRY_INTERVAL)

    async def _attempt(self) -> bool:
        """Return whether all is done until there is another leader or level."""
        if not self._running:
            return True
        if self._raft.state is RaftState.LEADER:
            return await self._commit()
        leader = self._raft.leader
        if leader is not None and not self._is_known():
            await self._ask(leader)
        return leader is None or self._is_known()

    @property
    def _told_name(self) -> str:
        """The name to advertise: "" while some members may not understand names."""
        return self._name if self._fsm.active_level else ""

    def _is_known(self) -> bool:
        return self._fsm.is_advertised(self._address, self._url, self._told_name)

    async def _commit(self) -> bool:
        """Commit URL and name, as the leader; return whether the state has them."""
        try:
            # Until all that was committed is applied, the state may still hold
            # an address that a later entry has replaced.
            await self._raft.barrier(ENQUEUE_TIMEOUT)
            if not self._is_known():
                command = encode_advertise(self._address, self._url, self._told_name)
                await self._raft.apply(command, ENQUEUE_TIMEOUT)
        except ApplicationError:
            raise
        except RaftError as error:
            self.log.debug("not advertised yet: {error}", error=error)
            return False
        return True

    async def _ask(self, leader: str) -> None:
        """Ask the *leader* to commit URL and name, if its own URL is known here."""
        url = self._fsm.http_url(leader)
        if url is None:
            return
        told = {"address": self._address, "url": self._url}
        if self._told_name:
            told["name"] = self._told_name
        query = urlencode(told)
        telling = self._forwarder.tell(url, f"{PATH}?{query}")
        self._asking = asking = Deferred.fromCoroutine(telling)
        try:
            status, said = await asking
        except (NotSent, NoAnswer, CancelledError) as error:
            status, said = 0, str(error)
        self._asking = None
        if status != 200:
            self.log.debug("not advertised yet: {why}", why=said)

    def _wait(self, seconds: float) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        timer = self._clock.callLater(seconds, self._resume, waiter)
        self._pause = waiter, timer
        return waiter

    def _wake(self) -> None:
        if self._pause is not None:
            waiter, timer = self._pause
            timer.cancel()
            self._resume(waiter)

    def _resume(self, waiter: Deferred[None]) -> None:
        self._pause = None
        waiter.callback(None)

    def _gave_up(self, failure: Failure) -> None:
        self.log.failure(
            "the HTTP address {url} was not advertised: other nodes cannot forward "
            "to this one",
            failure,
            url=self._url,
        )

    def _ended(self, _result: None) -> None:
        self._busy = False
