"""`Lock`, which one client in the whole cluster holds at a time, and `Election`.

    async with client.lock("jobs/nightly") as lock:
        await lock.guard(work(fence=lock.fence))

No lock in a distributed system can stop a holder that was paused: when it wakes up,
another may hold the lock. So send `fence`, which grows with every new holder, to
whatever the lock protects, and let it refuse a smaller one than it has seen.
"""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txraft.client.attempts import ClientCalls
from txraft.client.errors import (
    ClientError,
    LockLost,
    LockNotFree,
    Refused,
    SessionLost,
)
from txraft.client.exchange import NodeRequest, NodeResponse
from txraft.client.results import KeyValue, parse_flag, parse_records
from txraft.client.session import Session, guarded
from txraft.client.watch import INDEX, Watch

T = TypeVar("T")


class Lock:
    """The lock on *key*, held within `async with`; *value* is stored there meanwhile.

    *session* serves this lock alone: leaving the block ends both. Waiting for the lock
    can be cancelled like any Deferred.
    Thread: reactor.
    """

    def __init__(
        self, calls: ClientCalls, session: Session, key: str, value: bytes
    ) -> None:
        self._calls = calls
        self._session = session
        self._target = f"/v1/kv/{quote(key, safe='/')}"
        self._key = key
        self._value = value
        self._fence = 0
        self._watching: Deferred[None] | None = None
        self._lost: LockLost | None = None
        self._waiting: list[Deferred[SessionLost]] = []

    @property
    def key(self) -> str:
        """The key that is locked."""
        return self._key

    @property
    def fence(self) -> int:
        """The fencing token: higher than that of every holder before.

        It is the index in the cluster's log at which the lock was taken, so it grows
        even if the key is deleted between two holders.

        Raises: LockLost
        """
        self.check()
        return self._fence

    def check(self) -> None:
        """Raise LockLost unless the lock is held, as far as is known."""
        if self._lost is not None:
            raise self._lost
        if not self._fence:
            raise LockLost(f"the lock {self._key!r} is not held")

    def when_lost(self) -> Deferred[SessionLost]:
        """Return a Deferred that fires with the reason when the lock is lost."""
        waiter: Deferred[SessionLost] = Deferred(
            lambda d: self._waiting.remove(d) if d in self._waiting else None
        )
        if self._lost is not None:
            waiter.callback(self._lost)
        else:
            self._waiting.append(waiter)
        return waiter

    def guard(self, work: Coroutine[Any, Any, T] | Deferred[T]) -> Deferred[T]:
        """Run *work*, and cancel it when the lock is lost.

        Returns: a Deferred of the result of *work*; it fails with LockLost if the lock
            was lost first.
        """
        if isinstance(work, Deferred):
            running: Deferred[T] = work
        else:
            running = Deferred.fromCoroutine(work)
        return Deferred.fromCoroutine(guarded(running, self.when_lost()))

    def acquire(self, wait: float | None = None) -> Deferred[Lock]:
        """Wait for the lock without limit, or for *wait* seconds.

        There is always one attempt, so that 0 gets a lock that is free. Cancelling ends
        the session, so that nothing is left behind.
        Returns: a Deferred of this lock. It fails with LockNotFree when the lock did
            not become free in time, and with any other ClientError.
        """
        return Deferred.fromCoroutine(self._acquire(wait))

    def release(self) -> Deferred[None]:
        """Give the lock back.

        Returns: a Deferred that always fires with success: if the request fails, the
            lock becomes free when its session ends.
        """
        return Deferred.fromCoroutine(self._release())

    async def __aenter__(self) -> Lock:
        return await self._acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.release()

    async def _acquire(self, wait: float | None = None) -> Lock:
        session, clock = self._session, self._calls.clock
        until = None if wait is None else clock.seconds() + wait
        await session.open()
        try:
            # The first attempt has the time of any request; *wait* bounds the waiting
            # for another holder. Each step is guarded: a lock that is got with a lost
            # session would be held by nobody.
            trying = Deferred.fromCoroutine(self._try())
            if not await guarded(trying, session.when_lost()):
                waiting = Deferred.fromCoroutine(self._wait())
                if until is not None:
                    left = max(0.0, until - clock.seconds())
                    waiting.addTimeout(left, clock, self._not_free)
                await guarded(waiting, session.when_lost())
        except BaseException:  # also when cancelled: the request may have got the lock
            await session.close()
            raise
        # Only now: `_lose` counts for a lock that is held.
        session.when_lost().addCallback(lambda why: self._lose(str(why)))
        self._watching = watching = Deferred.fromCoroutine(self._watch())
        watching.addCallbacks(self._watch_ended, self._watch_failed)
        return self

    async def _wait(self) -> None:
        while True:
            record, index = await self._read(0)
            # Free, and yet refused: its lock delay lasts. No change of the key marks
            # the end of that, so a blocking query would wait in vain.
            if record is None or record.session is None:
                pause = self._calls.limits.lock_retry
                await deferLater(self._calls.clock, pause)
            while record is not None and record.session is not None:
                record, index = await self._read(index)
            if await self._try():
                return

    async def _try(self) -> bool:
        """Ask for the lock once; return whether this session holds it now."""
        # Safe to repeat: acquiring a lock that this session holds changes only the
        # value.
        target = f"{self._target}?acquire={self._session.id}"
        asked = NodeRequest("PUT", target, self._value, repeatable=True)
        if not parse_flag((await self._calls.expect(asked)).body):
            return False
        # The fence is read back, as the answer to the acquire has no index. In between
        # an operator may have taken the lock away.
        record, _ = await self._read(0)
        if record is None or record.session != self._session.id:
            return False
        self._fence = record.modify_index
        return True

    def _not_free(self, result: object, seconds: float) -> NoReturn:
        raise LockNotFree(
            f"{self._key!r} is held by another, or was lost by another so lately that "
            "its lock delay lasts"
        )

    async def _read(self, index: int) -> tuple[KeyValue | None, int]:
        """Read the key; with an *index*, wait until it has changed since that index."""
        target, patience = f"{self._target}?consistent=1", None
        if index:
            wait = self._calls.limits.watch_wait
            target = f"{self._target}?index={index}&wait={round(wait * 1000)}ms"
            patience = wait * 17 / 16 + self._calls.limits.read_timeout
        request = NodeRequest("GET", target, repeatable=True, patience=patience)
        response = await self._calls.expect(request, 404)
        text = response.header(INDEX) or ""
        return first_record(response), int(text) if text.isdigit() else 0

    async def _watch(self) -> None:
        """Return when this session no longer holds the key; an operator may do that."""
        watch: Watch[KeyValue | None] = Watch(self._calls, self._target, first_record)
        async for record in watch:
            if record is None or record.session != self._session.id:
                return

    def _watch_ended(self, _: None) -> None:
        self._watching = None
        self._lose("another took it, or it was deleted")

    def _watch_failed(self, failure: Failure) -> None:
        self._watching = None
        failure.trap(CancelledError, ClientError)
        if failure.check(ClientError):
            self._lose(failure.getErrorMessage())

    async def _release(self) -> None:
        # First of all: from here on `check` and `fence` fail, although the lock is
        # given back only by the request below.
        was_held, self._fence = bool(self._fence), 0
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
        try:
            if was_held and self._lost is None:
                target = f"{self._target}?release={self._session.id}"
                request = NodeRequest("PUT", target, self._value, repeatable=True)
                await self._calls.make(request)
        except ClientError:
            return
        finally:
            await self._session.close()

    def _lose(self, why: str) -> None:
        if self._lost is not None or not self._fence:
            return
        self._lost = LockLost(f"the lock {self._key!r} is lost: {why}")
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._lost)


class Election(Lock):
    """A candidacy: within `async with` this client is the elected one.

    *value* tells other clients who is elected; `observe` watches it.
    """

    def observe(self) -> Watch[bytes | None]:
        """Watch the *value* of the elected client, None while there is none."""
        return Watch(self._calls, self._target, _elected)


def first_record(response: NodeResponse) -> KeyValue | None:
    """Read the answer to the read of one key. Raises: Refused, MalformedAnswer"""
    if response.status == 404:
        # Without an index it is not the API that says so: see `Client`.
        if response.header(INDEX) is None:
            raise Refused(404, response.sentence)
        return None
    return next(iter(parse_records(response.body)), None)


def _elected(response: NodeResponse) -> bytes | None:
    record = first_record(response)
    return None if record is None or record.session is None else record.value
