"""Calls that wait for a change are made by the change itself, never by a clock."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import NamedTuple


class Scope(Enum):
    """What kind of thing is watched."""

    KEY = auto()
    PREFIX = auto()
    SESSIONS = auto()
    SESSION = auto()
    CATALOG = auto()


class Topic(NamedTuple):
    """One key, all keys under a prefix, all sessions, one of them, or who is there."""

    scope: Scope
    text: str = ""


SESSIONS = Topic(Scope.SESSIONS)
CATALOG = Topic(Scope.CATALOG)

Wake = Callable[[], object]
_Waiting = dict[str, dict[Wake, None]]


class Watches:
    """Calls to make upon the next change of a topic, each of them once.

    A call happens in the middle of applying commands: it may note something down and
    must do no more. A change that nobody waits for costs two tests; one that others
    wait for, a look for each length of a prefix that is waited for.
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
        """Return how many calls wait."""
        return sum(
            len(calls) for scope in self._scopes.values() for calls in scope.values()
        )

    def add(self, topic: Topic, wake: Wake) -> None:
        """Call *wake* upon the next change of *topic*."""
        scope = self._scopes[topic.scope]
        if topic.scope is Scope.PREFIX and topic.text not in scope:
            length = len(topic.text)
            self._lengths[length] += 1
            if self._lengths[length] == 1:
                self._ascending = tuple(sorted(self._lengths))
        scope.setdefault(topic.text, {})[wake] = None

    def discard(self, topic: Topic, wake: Wake) -> None:
        """Do not call *wake* any more; idempotent."""
        calls = self._scopes[topic.scope].get(topic.text)
        if calls is not None and wake in calls:
            del calls[wake]
            if not calls:
                self._take(topic)

    def key_changed(self, key: str) -> None:
        """Wake who watches *key* or a prefix of it."""
        if self._keys and key in self._keys:
            self._wake(Topic(Scope.KEY, key))
        if self._prefixes:
            for length in self._ascending:
                if length > len(key):
                    break
                if key[:length] in self._prefixes:
                    self._wake(Topic(Scope.PREFIX, key[:length]))

    def keys_changed(self, prefix: str, keys: Sequence[str]) -> None:
        """Wake who watches one of *keys*, all of which begin with *prefix*.

        What it costs grows with those who wait or with the keys, whatever is fewer.
        """
        if len(keys) <= len(self._keys) + len(self._prefixes):
            for key in keys:
                self.key_changed(key)
            return
        if self._keys:
            gone = set(keys)
            for key in [key for key in self._keys if key in gone]:
                self._wake(Topic(Scope.KEY, key))
        if self._prefixes:
            ordered: list[str] | None = None
            for text in list(self._prefixes):
                if not prefix.startswith(text):
                    if not text.startswith(prefix):
                        continue
                    ordered = sorted(keys) if ordered is None else ordered
                    found = bisect_left(ordered, text)
                    if found == len(ordered) or not ordered[found].startswith(text):
                        continue
                self._wake(Topic(Scope.PREFIX, text))

    def sessions_changed(self, ids: Sequence[str]) -> None:
        """Wake who watches all sessions, or one of *ids*."""
        if self._sessions:
            self._wake(SESSIONS)
        if self._each_session:
            for id in ids:
                if id in self._each_session:
                    self._wake(Topic(Scope.SESSION, id))

    def catalog_changed(self) -> None:
        """Wake who watches members and services."""
        if self._scopes[Scope.CATALOG]:
            self._wake(CATALOG)

    def everything_changed(self) -> None:
        """Wake everybody."""
        for scope, waiting in self._scopes.items():
            for text in list(waiting):
                self._wake(Topic(scope, text))

    def _wake(self, topic: Topic) -> None:
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
