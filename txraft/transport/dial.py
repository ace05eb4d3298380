"""One attempt to connect to a peer, with a timeout that no endpoint can exceed."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txraft.errors import ConnectionFailed
from txraft.transport.link import Link


class Dial:
    """An attempt to connect *link*. `result` fires once, with the link or an error."""

    def __init__(self, clock: IReactorTime, link: Link) -> None:
        self._clock = clock
        self._link = link
        self._attempt: Deferred[IProtocol] | None = None
        self._timer: IDelayedCall | None = None
        self._settled = False
        self.result: Deferred[Link] = Deferred(lambda _: self._give_up())

    def start(self, endpoint: IStreamClientEndpoint, timeout: float) -> None:
        """Connect through *endpoint*, for at most *timeout* seconds."""
        self._timer = self._clock.callLater(timeout, self._expired, timeout)
        self._attempt = endpoint.connect(_LinkFactory(self._link))
        self._attempt.addCallbacks(self._connected, self._failed)

    def stop(self, error: Exception) -> None:
        """Give up and fail with *error*."""
        if not self._settled:
            self._give_up()
            self.result.errback(error)

    def _give_up(self) -> None:
        self._settle()
        if self._attempt is not None:
            self._attempt.cancel()

    def _expired(self, timeout: float) -> None:
        self._timer = None
        target = self._link.target
        self.stop(ConnectionFailed(f"{target} could not be reached in {timeout} s"))

    def _connected(self, _: IProtocol) -> None:
        # An endpoint may connect although it was cancelled: nobody would close this.
        if self._settled:
            self._link.abort()
            return
        self._settle()
        self.result.callback(self._link)

    def _failed(self, failure: Failure) -> None:
        if self._settled:
            return
        self._settle()
        reason = failure.getErrorMessage()
        self.result.errback(
            ConnectionFailed(f"{self._link.target} could not be reached: {reason}")
        )

    def _settle(self) -> None:
        self._settled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self._link
