"""Batteries: a dict, queues and a lock that are replicated, ready for use.

Whoever holds something for a time gets a *token* with it: a number that grows from
holder to holder. A process that was stopped wakes up and still believes in its lease.
So what it does elsewhere carries the token, and a smaller one than was seen there is
refused. The lock and the queues do so themselves.

Source: M. Kleppmann, "How to do distributed locking", on fencing tokens.
"""

from __future__ import annotations

from bisect import insort
from math import isfinite
from typing import Generic, TypeVar

from txraft.replicated.objects import Replicated, command, query
from txraft.replicated.values import value

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T")


class ReplicatedDict(Replicated, Generic[K, V]):
    """A dict: keys and values are what `txraft.value` says, and may be lists and dicts.

    `set_if_is` compares and sets in one step, for who changes what was read.
    """

    def __init__(self) -> None:
        self.items: dict[K, V] = {}

    @command
    def set(self, key: K, item: V) -> None:
        """Set one key."""
        self.items[key] = item

    @command
    def set_default(self, key: K, item: V) -> V:
        """Set *key* unless it is there; return what it has then."""
        return self.items.setdefault(key, item)

    @command
    def set_if_is(self, key: K, expected: V | None, item: V) -> bool:
        """Set *key* if it has *expected*, None for nothing; tell whether it had."""
        if self.items.get(key) != expected:
            return False
        self.items[key] = item
        return True

    @command
    def update(self, items: dict[K, V]) -> None:
        """Set many keys in one step."""
        self.items.update(items)

    @command
    def pop(self, key: K) -> V | None:
        """Take out *key*; return what it had, None for nothing."""
        return self.items.pop(key, None)

    @command
    def clear(self) -> None:
        """Take out all."""
        self.items.clear()

    @query
    def get(self, key: K) -> V | None:
        """Return what *key* has, None for nothing."""
        return self.items.get(key)

    @query
    def all(self) -> dict[K, V]:
        """Return a copy of it all."""
        return self.items

    @query
    def size(self) -> int:
        """Return how many keys there are."""
        return len(self.items)


@value(name="txraft.Claim")
class Claim:
    """An item that somebody works on until the time *until*, under its *token*."""

    id: int
    item: object
    token: int
    until: float


class _Queue(Replicated, Generic[T]):
    """What both queues have: claims with leases."""

    def __init__(self) -> None:
        self.last = 0
        self.claims: dict[int, Claim] = {}

    def _next(self) -> tuple[int, T] | None:
        """Take out what is to be handed out next."""
        raise NotImplementedError

    def _expired(self) -> tuple[int, object] | None:
        """Take out a claim whose lease is over."""
        now = self.context.time
        for claim in self.claims.values():
            if claim.until <= now:
                del self.claims[claim.id]
                return claim.id, claim.item
        return None

    @command
    def claim(self, seconds: float) -> Claim | None:
        """Hand out an item for so many seconds; None if there is none.

        What was not finished by then is handed out again, with a larger token: so each
        item is worked on at least once.
        """
        until = self.context.time + _lease(seconds)
        found = self._expired() or self._next()
        if found is None:
            return None
        id, item = found
        claim = Claim(id, item, self.context.index, until)
        self.claims[id] = claim
        return claim

    @command
    def extend(self, id: int, token: int, seconds: float) -> bool:
        """Let a claim last so many seconds from now; tell whether it is still held."""
        claim = self.claims.get(id)
        until = self.context.time + _lease(seconds)
        if claim is None or claim.token != token:
            return False
        self.claims[id] = Claim(id, claim.item, token, until)
        return True

    @command
    def finish(self, id: int, token: int) -> bool:
        """Take a claimed item out for good; tell whether the claim was still held."""
        claim = self.claims.get(id)
        if claim is None or claim.token != token:
            return False
        del self.claims[id]
        return True

    @query
    def claimed(self) -> list[Claim]:
        """List what is being worked on."""
        return [*self.claims.values()]


class ReplicatedQueue(_Queue[T]):
    """A queue: what came first is handed out first."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[int, T] = {}

    @command
    def put(self, item: T) -> int:
        """Add an item; return its id."""
        self.last += 1
        self.waiting[self.last] = item
        return self.last

    def _next(self) -> tuple[int, T] | None:
        for id in self.waiting:
            return id, self.waiting.pop(id)
        return None

    @query
    def size(self) -> int:
        """Return how many items wait, without those that are claimed."""
        return len(self.waiting)


class ReplicatedPriorityQueue(_Queue[T]):
    """A queue: what has the smallest priority is handed out first, then the oldest."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[tuple[float, int]] = []
        self.waiting: dict[int, T] = {}

    @command
    def put(self, item: T, priority: float) -> int:
        """Add an item; return its id."""
        self.last += 1
        insort(self.order, (priority, self.last))
        self.waiting[self.last] = item
        return self.last

    def _next(self) -> tuple[int, T] | None:
        if not self.order:
            return None
        _, id = self.order.pop(0)
        return id, self.waiting.pop(id)

    @query
    def size(self) -> int:
        """Return how many items wait, without those that are claimed."""
        return len(self.waiting)


class ReplicatedLock(Replicated):
    """A lock with leases: one owner at a time, and a token for each taking."""

    def __init__(self) -> None:
        self.owner: str | None = None
        self.token = 0
        self.until = 0.0

    @command
    def acquire(self, owner: str, seconds: float) -> int | None:
        """Take the lock for so many seconds, unless somebody else has it.

        Returns: the token, which is larger than all before it; the same as before, if
            *owner* has the lock, whose lease is longer now; None if another has it.
        """
        now, until = self.context.time, self.context.time + _lease(seconds)
        is_held = self.owner is not None and self.until > now
        if is_held and self.owner != owner:
            return None
        if not is_held:
            self.token = self.context.index
        self.owner, self.until = owner, until
        return self.token

    @command
    def release(self, token: int) -> bool:
        """Let go of the lock; tell whether it was held under *token*."""
        if self.owner is None or self.token != token:
            return False
        self.owner = None
        return True

    @query
    def holder(self) -> tuple[str, int, float] | None:
        """Return who took it, the token, and when the lease ends; None for nobody."""
        if self.owner is None:
            return None
        return self.owner, self.token, self.until


def _lease(seconds: float) -> float:
    """Check how long a lease is. Raises: ValueError"""
    if not (isfinite(seconds) and seconds > 0):
        raise ValueError(f"a lease lasts for some seconds, not {seconds}")
    return float(seconds)
