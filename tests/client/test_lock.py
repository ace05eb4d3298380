"""Sessions and locks: a holder learns in time that it holds no more."""

from __future__ import annotations

import json

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.http import Request

from tests.support.client_cluster import ClientCase, answer, record, silence
from txraft.client import ClientLimits, Lock, LockLost, LockNotFree, SessionLost

TRUE = answer(200, b"true")
DOWN = answer(500, b"down")


class Locks:
    """What a node says to a client that makes sessions and locks the key `k`."""

    def __init__(self) -> None:
        self.holder: str | None = None
        self.free = True
        self.renewals = 0
        self.over: set[str] = set()
        self.calls: list[str] = []
        self.watching: list[Request] = []

    def __call__(self, request: Request) -> None:
        path = request.uri.decode()
        if path == "/v1/session/create":
            self.calls.append("create")
            answer(200, {"ID": "mine"})(request)
        elif path.startswith("/v1/session/renew/"):
            self.renewals += 1
            gone = path.rsplit("/", 1)[1] in self.over
            answer(404 if gone else 200, b"Session not found" if gone else [])(request)
        elif path.startswith("/v1/session/destroy/"):
            self.calls.append("destroy")
            TRUE(request)
        elif "acquire=" in path:
            self.calls.append("acquire")
            got = self.free and self.holder in (None, "mine")
            self.holder = "mine" if got else self.holder
            answer(200, got)(request)
        elif "release=" in path:
            self.calls.append("release")
            self.set_holder(None)
            TRUE(request)
        elif "index=" in path:
            self.watching.append(request)
        else:
            self._tell(request)

    def set_holder(self, holder: str | None) -> None:
        """Let the lock go to *holder*, and tell those who wait."""
        self.holder = holder
        watching, self.watching = self.watching, []
        for request in watching:
            self._tell(request)

    def _tell(self, request: Request) -> None:
        more = {"Session": self.holder} if self.holder else {}
        index = 10 if self.holder == "mine" else 11 if self.holder else 12
        known = record("k", b"me", index, LockIndex=4, **more)
        answer(200, [known], X_Consul_Index=str(index))(request)


class LockCase(ClientCase):
    """All three nodes tell of the same locks."""

    limits = ClientLimits(watch_wait=600.0)

    def setUp(self) -> None:
        super().setUp()
        self.locks = Locks()
        self.let(self.locks)

    def let(self, default: object) -> None:
        """Let every node answer with *default*."""
        for node in (self.a, self.b, self.c):
            node.default = default  # type: ignore[assignment]

    def flush(self) -> None:
        """Carry bytes until a chain of requests is through."""
        for _ in range(5):
            self.network.flush()

    def acquired(self) -> Lock:
        """Get the lock."""
        acquiring = self.client.lock("k", b"me", ttl=15).acquire()
        self.flush()
        return self.successResultOf(acquiring)


class Sessions(LockCase):
    """A session is renewed, and known to be lost before others can know."""

    def open(self) -> object:
        opening = self.client.session(ttl=15, lock_delay=1, name="me").open()
        self.flush()
        return self.successResultOf(opening)

    def test_open(self) -> None:
        """The cluster is told TTL, behavior and lock delay."""
        session = self.open()

        self.assertEqual(session.id, "mine")
        self.assertEqual(
            json.loads(self.a.bodies[0]),
            {
                "Name": "me",
                "TTL": "15s",
                "Behavior": "release",
                "LockDelay": "1s",
                "TTLMultiplier": 1,
            },
        )

    def test_renewed_three_times_a_ttl(self) -> None:
        """Two renewals may fail before the TTL is up."""
        session = self.open()

        self.pass_time(61)

        self.assertEqual(self.locks.renewals, 12)
        self.assertEqual(session.id, "mine")

    def test_lost_when_no_renewal_is_answered(self) -> None:
        """After a TTL without an answer, counted from when the last one was asked."""
        session = self.open()
        lost = session.when_lost()
        self.pass_time(5.2)
        self.assertEqual(self.locks.renewals, 1)
        self.let(silence)

        self.pass_time(14.6)
        self.assertNoResult(lost)
        self.pass_time(0.4)

        self.assertIsInstance(self.successResultOf(lost), SessionLost)
        self.assertRaises(SessionLost, lambda: session.id)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answer_that_comes_late(self) -> None:
        """The TTL counts from the question: the answer may have been long under way."""
        session = self.open()
        lost = session.when_lost()
        held: list[Request] = []
        self.let(held.append)
        self.pass_time(5.1)
        self.let(silence)
        self.pass_time(4)

        answer(200, [])(held[0])
        self.pass_time(10.5)
        self.assertNoResult(lost)
        self.pass_time(0.6)

        self.assertIsInstance(self.successResultOf(lost), SessionLost)

    def test_ended_by_the_cluster(self) -> None:
        """404 to a renewal says that the session is over."""
        session = self.open()
        lost = session.when_lost()
        self.locks.over = {"mine"}

        self.pass_time(5.5)

        self.assertIn("Session not found", str(self.successResultOf(lost)))

    def test_close(self) -> None:
        """A session that is closed is ended there, and renewed no more."""
        session = self.open()

        closing = session.close()
        self.flush()

        self.successResultOf(closing)
        self.assertEqual(self.locks.calls, ["create", "destroy"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ttl_out_of_range(self) -> None:
        """What the cluster would refuse is refused at once."""
        self.assertRaises(ValueError, self.client.session, 5)


class Acquiring(LockCase):
    """A lock is waited for, and held by one."""

    def test_no_wait_gets_a_free_lock(self) -> None:
        """Who does not wait for others still waits for the answer."""
        for wait in (0, 0.0, 0.001):
            lock = self.client.lock("k", b"me")
            acquiring = lock.acquire(wait)
            self.clock.advance(1)
            self.flush()
            self.assertIs(self.successResultOf(acquiring), lock)
            lock.release()
            self.flush()

    def test_no_wait_for_another(self) -> None:
        """A lock that is held is given up at once, or after the time given."""
        self.locks.holder = "other"
        for wait in (0, 3):
            acquiring = self.client.lock("k", b"me").acquire(wait)
            self.flush()
            if wait:
                self.pass_time(wait - 0.2)
                self.assertNoResult(acquiring)
            self.pass_time(0.4)

            error = self.failed(acquiring, LockNotFree)
            self.assertIn("'k' is held by another", str(error))
            self.assertEqual(self.locks.calls[-1], "destroy")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_free(self) -> None:
        """A free lock is held at once, with its fencing token."""
        lock = self.acquired()

        self.assertEqual(lock.fence, 10)
        lock.check()

    def test_released(self) -> None:
        """Leaving gives the lock back before the session ends: no lock delay."""
        lock = self.acquired()

        releasing = lock.release()
        self.flush()

        self.successResultOf(releasing)
        self.assertEqual(self.locks.calls, ["create", "acquire", "release", "destroy"])
        self.assertRaises(LockLost, lock.check)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_released_unheard(self) -> None:
        """What watched over the lock ends with it, whether or not that is heard of."""
        lock = self.acquired()
        self.flush()
        self.locks.set_holder = lambda holder: None  # type: ignore[method-assign]

        releasing = lock.release()
        self.flush()

        self.successResultOf(releasing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_held_by_another(self) -> None:
        """It is waited for with a blocking query, and had when it is free."""
        self.locks.holder = "other"
        acquiring = self.client.lock("k").acquire()
        self.flush()
        self.pass_time(30)
        self.assertNoResult(acquiring)
        self.assertEqual(self.locks.calls, ["create", "acquire"])

        self.locks.set_holder(None)
        self.flush()

        self.pass_time(1.1)
        self.assertEqual(self.successResultOf(acquiring).fence, 10)

    def test_in_its_lock_delay(self) -> None:
        """A lock that nobody holds and nobody gets is tried for again, in a while."""
        self.locks.free = False
        acquiring = self.client.lock("k").acquire()
        self.flush()
        self.pass_time(2.5)
        self.locks.free = True

        self.pass_time(1.0)

        self.successResultOf(acquiring)

    def test_cancel(self) -> None:
        """Who waits no more leaves no session behind."""
        self.locks.holder = "other"
        acquiring = self.client.lock("k").acquire()
        self.flush()

        acquiring.cancel()
        self.flush()

        self.failureResultOf(acquiring, CancelledError)
        self.assertEqual(self.locks.calls, ["create", "acquire", "destroy"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_session_lost_meanwhile(self) -> None:
        """Who waits without a session waits in vain, and is told."""
        self.locks.holder = "other"
        acquiring = self.client.lock("k").acquire()
        self.flush()
        self.locks.over = {"mine"}

        self.pass_time(5.5)
        self.flush()

        self.failureResultOf(acquiring, LockLost)


class Holding(LockCase):
    """A holder is told when it holds no more."""

    def test_guard(self) -> None:
        """Guarded work is cancelled when the session is lost."""
        lock = self.acquired()
        cancelled: list[object] = []
        guarded = lock.guard(Deferred(cancelled.append))
        self.let(DOWN)

        self.pass_time(14)
        self.assertNoResult(guarded)
        self.pass_time(1.5)

        self.failureResultOf(guarded, LockLost)
        self.assertEqual(len(cancelled), 1)
        self.assertRaises(LockLost, lambda: lock.fence)

    def test_guard_that_ends(self) -> None:
        """What guarded work returns is returned, and nothing waits any more."""
        lock = self.acquired()

        async def work() -> int:
            return lock.fence

        self.assertEqual(self.successResultOf(lock.guard(work())), 10)

    def test_taken_away(self) -> None:
        """An operator who unlocks the key is noticed at once, by the watch."""
        lock = self.acquired()
        self.flush()
        lost = lock.when_lost()

        self.locks.set_holder("other")
        self.flush()

        self.assertIsInstance(self.successResultOf(lost), LockLost)
        lock.release()

    def test_released_within_the_news_of_its_loss(self) -> None:
        """Whoever hears of the loss may let go of the lock right there."""
        lock = self.acquired()
        self.flush()
        lost = lock.when_lost().addCallback(lambda _: lock.release())

        self.locks.set_holder("other")
        self.flush()

        self.successResultOf(lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_async_with(self) -> None:
        """The block is the time of holding it."""
        seen: list[object] = []

        async def run() -> None:
            async with self.client.lock("k", b"me") as lock:
                seen.append(lock.fence)
                raise RuntimeError("the work failed")

        running = Deferred.fromCoroutine(run())
        self.flush()

        self.failureResultOf(running, RuntimeError)
        self.assertEqual(seen, [10])
        self.assertEqual(self.locks.calls[-2:], ["release", "destroy"])


class Elections(LockCase):
    """An election is a lock whose value names who holds it."""

    def test_observe(self) -> None:
        """Everybody can watch who is elected."""
        seen: list[bytes | None] = []

        async def run() -> None:
            async for leader in self.client.election("k", b"me").observe():
                seen.append(leader)

        self.locks.holder = "other"
        running = Deferred.fromCoroutine(run())
        self.flush()
        self.locks.set_holder(None)
        self.flush()

        self.assertEqual(seen, [b"me", None])
        running.cancel()
        self.failureResultOf(running, CancelledError)
