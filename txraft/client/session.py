"""`Session`: a sign of life that the cluster watches, and that locks depend on.

The cluster ends a session whose holder has not renewed it for its TTL. The holder
counts the TTL on its own clock, from when it *sent* the last renewal that was answered:
so it knows that the session is lost before anybody else can get its locks.

    async with client.session(ttl=15) as session:
        await client.put(key, value, acquire=session.id)
"""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txraft.client.attempts import ClientCalls
from txraft.client.errors import ClientError, LockLost, MalformedAnswer, SessionLost
from txraft.client.exchange import NodeRequest, NodeResponse
from txraft.client.results import parse_json

T = TypeVar("T")
RENEWALS_PER_TTL = 3
MIN_TTL = 10.0
MAX_TTL = 86400.0


class Session:
    """A session with a *ttl* in seconds, made and renewed within `async with`.

    *behavior* says what happens to its locked keys when it ends: `release` or `delete`.
    For *lock_delay* seconds after the session was lost nobody gets its locks.
    Thread: reactor.
    """

    def __init__(
        self,
        calls: ClientCalls,
        ttl: float,
        behavior: str,
        lock_delay: float,
        name: str,
    ) -> None:
        if not MIN_TTL <= ttl <= MAX_TTL:
            raise ValueError(f"ttl is {ttl} s, it must be {MIN_TTL} to {MAX_TTL} s")
        self._calls = calls
        self._ttl = ttl
        self._wanted: dict[str, object] = {
            "Name": name,
            "TTL": f"{ttl:g}s",
            "Behavior": behavior,
            "LockDelay": f"{lock_delay:g}s",
            # Consul keeps a session for twice its TTL, because a holder may not know
            # how old a renewal is. This one knows, so its locks become free in half the
            # time.
            "TTLMultiplier": 1,
        }
        self._id: str | None = None
        self._renewal: IDelayedCall | None = None
        self._expiry: IDelayedCall | None = None
        self._renewing: Deferred[Any] | None = None
        self._lost: SessionLost | None = None
        self._waiting: list[Deferred[SessionLost]] = []

    @property
    def id(self) -> str:
        """The id that the cluster gave it. Raises: SessionLost before and after."""
        if self._lost is not None:
            raise self._lost
        if self._id is None:
            raise SessionLost("the session is not open")
        return self._id

    def when_lost(self) -> Deferred[SessionLost]:
        """Return a Deferred that fires with the reason when the session is lost."""
        waiter: Deferred[SessionLost] = Deferred(
            lambda d: self._waiting.remove(d) if d in self._waiting else None
        )
        if self._lost is not None:
            waiter.callback(self._lost)
        else:
            self._waiting.append(waiter)
        return waiter

    def open(self) -> Deferred[Session]:
        """Make the session and begin to renew it.

        Returns: a Deferred of this session; it fails with a ClientError.
        """
        return Deferred.fromCoroutine(self._open())

    def close(self) -> Deferred[None]:
        """End the session, which releases its locks.

        Returns: a Deferred that always fires with success: if the request fails, the
            session ends by itself after its TTL.
        """
        return Deferred.fromCoroutine(self._close())

    async def __aenter__(self) -> Session:
        return await self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _open(self) -> Session:
        # Taken before the request: the cluster counts from its arrival, which is later.
        sent = self._calls.clock.seconds()
        body = json.dumps(self._wanted).encode()
        # Repeatable: a second session, made when an answer was lost, ends after its
        # TTL.
        request = NodeRequest("PUT", "/v1/session/create", body, repeatable=True)
        answer: Any = parse_json((await self._calls.expect(request)).body)
        try:
            self._id = str(answer["ID"])
        except (KeyError, TypeError) as error:
            raise MalformedAnswer("an answer names no session") from error
        self._renewed(sent)
        return self

    async def _close(self) -> None:
        id, self._id = self._id, None
        self._stop()
        if id is None or self._lost is not None:
            return
        # Before the request: who relies on the locks must stop before they are free.
        self._lose("it was closed")
        target = f"/v1/session/destroy/{id}"
        try:
            await self._calls.make(NodeRequest("PUT", target, b"", repeatable=True))
        except ClientError:
            return

    def _renewed(self, sent: float) -> None:
        """Count the TTL anew, from the time at which the renewal was sent."""
        clock = self._calls.clock
        if self._expiry is not None:
            self._expiry.cancel()
        # Not from now: the answer may have been on its way for most of the TTL.
        left = max(0.0, sent + self._ttl - clock.seconds())
        self._expiry = clock.callLater(left, self._expired)
        interval = self._ttl / RENEWALS_PER_TTL
        self._renewal = clock.callLater(interval, self._renew)

    def _renew(self) -> None:
        self._renewal = None
        sent = self._calls.clock.seconds()
        target = f"/v1/session/renew/{self._id}"
        # Tried for the length of the TTL: an answer after that is worth nothing.
        request = NodeRequest("PUT", target, b"", repeatable=True, timeout=self._ttl)
        self._renewing = renewing = Deferred.fromCoroutine(self._calls.make(request))
        renewing.addCallbacks(self._answered, _not_renewed, callbackArgs=(sent,))

    def _answered(self, response: NodeResponse, sent: float) -> None:
        self._renewing = None
        if response.status == 200:
            self._renewed(sent)
        else:
            self._lose(f"the cluster has ended it: {response.sentence}")

    def _expired(self) -> None:
        self._expiry = None
        self._lose(f"it could not be renewed for {self._ttl:g} s")

    def _lose(self, why: str) -> None:
        self._stop()
        if self._lost is not None:
            return
        self._lost = SessionLost(f"the session is lost: {why}")
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._lost)

    def _stop(self) -> None:
        for timer in (self._renewal, self._expiry):
            if timer is not None and timer.active():
                timer.cancel()
        self._renewal = self._expiry = None
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()


def _not_renewed(failure: Failure) -> None:
    """Ignore the failure: if no renewal succeeds, `_expired` ends the session."""
    failure.trap(CancelledError, ClientError)


async def guarded(running: Deferred[T], lost: Deferred[SessionLost]) -> T:
    """Wait for *running*, and cancel it when *lost* fires.

    Raises: LockLost with the reason; else what *running* fails with.
    """
    reason: list[SessionLost] = []

    def interrupt(why: SessionLost) -> None:
        reason.append(why)
        running.cancel()

    lost.addCallbacks(interrupt, lambda failure: failure.trap(CancelledError))
    try:
        return await running
    except CancelledError:
        # Told apart from a cancellation by the caller, which goes on as it is.
        if reason:
            raise LockLost(str(reason[0])) from None
        raise
    finally:
        lost.cancel()
