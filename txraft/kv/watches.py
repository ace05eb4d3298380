"""Watches: a change of a key, a prefix, a session or the catalog wakes its waiters."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple


class Scope(Enum):
    """The kinds of things that can be watched."""

    KEY = auto()
    PREFIX = auto()
    SESSIONS = auto()
    SESSION = auto()
    CATALOG = auto()


class Topic(NamedTuple):
    """The thing watched: a key, a prefix, all sessions, one session, or the catalog."""

    scope: Scope
    text: str = ""


SESSIONS = Topic(Scope.SESSIONS)
CATALOG = Topic(Scope.CATALOG)

Wake = Callable[[], object]
_Waiting = dict[str, dict[Wake, None]]


class Watches:
    """Functions to call upon the next change of their topics, each of them once.

    They are called in the middle of applying a command, so they may only note something
    down. A change costs two tests if nobody waits; else one lookup for each length of
    the prefixes that are waited for.
    """

    def __init__(self) -> None:
        self._keys: _Waiting = {}
        self._prefixes: _Waiting = {}
        self._sessions: _Waiting = {}
        self._each_session: _Waiting = {}
        self._lengths: Counter[int] = Counter()
        self._ascending: tuple[int, ...] = ()
        self._scopes = {
            Scope.KEY: self._keys,
            Scope.PREFIX: self._prefixes,
            Scope.SESSIONS: self._sessions,
            Scope.SESSION: self._each_session,
            Scope.CATALOG: {},
        }

    def __len__(self) -> int:
        """Return the number of functions that wait."""
        return sum(
            len(calls) for scope in self._scopes.values() for calls in scope.values()
        )

    def add(self, topic: Topic, wake: Wake) -> None:
        """Call *wake* upon the next change of *topic*."""
        scope = self._scopes[topic.scope]
        if topic.scope is Scope.PREFIX and topic.text not in scope:
            length = len(topic.text)
            self._lengths[length] += 1
            # Sorted for a length that is new, not for each waiter: there may be
            # thousands.
            if self._lengths[length] == 1:
                self._ascending = tuple(sorted(self._lengths))
        scope.setdefault(topic.text, {})[wake] = None

    def discard(self, topic: Topic, wake: Wake) -> None:
        """Do not call *wake*; idempotent."""
        calls = self._scopes[topic.scope].get(topic.text)
        if calls is not None and wake in calls:
            del calls[wake]
            if not calls:
                self._take(topic)

    def key_changed(self, key: str) -> None:
        """Wake those who watch *key* or a prefix of it."""
        # This runs for each write: without waiters it must cost no call.
        if self._keys and key in self._keys:
            self._wake(Topic(Scope.KEY, key))
        if self._prefixes:
            # `_wake` may replace the tuple, but never changes this one.
            for length in self._ascending:
                if length > len(key):
                    break
                if key[:length] in self._prefixes:
                    self._wake(Topic(Scope.PREFIX, key[:length]))

    def keys_changed(self, prefix: str, keys: Sequence[str]) -> None:
        """Wake those who watch one of *keys*, all of which begin with *prefix*.

        The cost grows with the number of waiters or of keys, whichever is smaller.
        """
        if len(keys) <= len(self._keys) + len(self._prefixes):
            for key in keys:
                self.key_changed(key)
            return
        if self._keys:
            gone = set(keys)
            # A list, as each wake takes a topic out of the dict.
            for key in [key for key in self._keys if key in gone]:
                self._wake(Topic(Scope.KEY, key))
        if self._prefixes:
            ordered: list[str] | None = None
            for text in list(self._prefixes):
                if not prefix.startswith(text):
                    if not text.startswith(prefix):
                        continue
                    # Sorted only if somebody waits for a longer prefix, which is rare.
                    ordered = sorted(keys) if ordered is None else ordered
                    found = bisect_left(ordered, text)
                    if found == len(ordered) or not ordered[found].startswith(text):
                        continue
                self._wake(Topic(Scope.PREFIX, text))

    def sessions_changed(self, ids: Sequence[str]) -> None:
        """Wake those who watch all sessions, or one of *ids*."""
        if self._sessions:
            self._wake(SESSIONS)
        if self._each_session:
            for id in ids:
                if id in self._each_session:
                    self._wake(Topic(Scope.SESSION, id))

    def catalog_changed(self) -> None:
        """Wake those who watch members and services."""
        # `_wake` may be called only for a topic that somebody waits for.
        if self._scopes[Scope.CATALOG]:
            self._wake(CATALOG)

    def everything_changed(self) -> None:
        """Wake everybody."""
        for scope, waiting in self._scopes.items():
            for text in list(waiting):
                self._wake(Topic(scope, text))

    def _wake(self, topic: Topic) -> None:
        # Taken out before the calls: a waiter may watch the same topic again at once.
        for wake in self._take(topic):
            wake()

    def _take(self, topic: Topic) -> dict[Wake, None]:
        if topic.scope is Scope.PREFIX:
            length = len(topic.text)
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]
                self._ascending = tuple(sorted(self._lengths))
        return self._scopes[topic.scope].pop(topic.text)
