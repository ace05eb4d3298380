"""Telling the cluster where a node serves HTTP, so that others can forward to it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.errors import ApplicationError, RaftError
from txraft.http.node import Node
from txraft.kv.commands import encode_advertise
from txraft.kv.state import KeyValueFSM
from txraft.node.observers import Observation, Observer
from txraft.node.state import RaftState

RETRY_INTERVAL = 1.0
ENQUEUE_TIMEOUT = 5.0


class Advertiser:
    """Commits *url* as the HTTP address of this node whenever it becomes the leader.

    Only the leader's is ever needed, and a leader can commit it by itself. One that
    the state holds already is not committed again.
    """

    log = Logger()

    def __init__(
        self, raft: Node, fsm: KeyValueFSM, clock: IReactorTime, address: str, url: str
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._clock = clock
        self._address = address
        self._url = url
        self._observer = Observer(self._observed)
        self._running = False
        self._busy = False
        self._pause: tuple[Deferred[None], IDelayedCall] | None = None

    def start(self) -> None:
        """Advertise now, if this node leads, and on every leadership from now on."""
        self._running = True
        self._raft.register_observer(self._observer)
        self._begin()

    def stop(self) -> None:
        """Advertise no more; idempotent."""
        self._running = False
        self._raft.deregister_observer(self._observer)
        if self._pause is not None:
            waiter, timer = self._pause
            timer.cancel()
            self._resume(waiter)

    def _observed(self, observation: Observation) -> None:
        if observation.data is RaftState.LEADER:
            self._begin()

    def _begin(self) -> None:
        if not self._busy and self._leads():
            self._busy = True
            advertised = Deferred.fromCoroutine(self._advertise())
            advertised.addErrback(self._gave_up).addCallback(self._ended)

    def _leads(self) -> bool:
        return self._running and self._raft.state is RaftState.LEADER

    async def _advertise(self) -> None:
        while self._leads():
            try:
                # Until all that was committed is applied, the state may still hold
                # an address that a later entry has replaced.
                await self._raft.barrier(ENQUEUE_TIMEOUT)
                if self._fsm.http_url(self._address) != self._url:
                    command = encode_advertise(self._address, self._url)
                    await self._raft.apply(command, ENQUEUE_TIMEOUT)
                return
            except ApplicationError:
                raise
            except RaftError as error:
                self.log.debug("not advertised yet: {error}", error=error)
            await self._wait()

    def _wait(self) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        timer = self._clock.callLater(RETRY_INTERVAL, self._resume, waiter)
        self._pause = waiter, timer
        return waiter

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
