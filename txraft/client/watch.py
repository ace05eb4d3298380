"""Waiting for changes: one blocking query after the other, and no change reported
twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.task import deferLater

from txraft.client.attempts import Calls
from txraft.client.errors import Refused, Unavailable
from txraft.client.exchange import Question, Reply

T = TypeVar("T")
INDEX = "X-Consul-Index"


class Watch(Generic[T]):
    """An endless asynchronous iterator over the states of what *target* names.

    The first is the state at present. Two that follow each other differ; states
    between them may have been passed over. Nothing is asked while nobody iterates, and
    to end it is to leave the loop. While no node answers it goes on trying.
    """

    def __init__(
        self, calls: Calls, target: str, parse: Callable[[Reply], T], index: int = 0
    ) -> None:
        self._calls = calls
        self._target = target
        self._parse = parse
        self._index = index
        self._last: list[T] = []

    def __aiter__(self) -> Watch[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            state = await self._next()
            if [state] != self._last:
                self._last = [state]
                return state

    async def _next(self) -> T:
        while True:
            try:
                return self._parse(await self._poll())
            except Unavailable:
                pause = self._calls.limits.max_retry_interval
                await deferLater(self._calls.clock, pause)

    async def _poll(self) -> Reply:
        wait = self._calls.limits.watch_wait
        target, patience = self._target, None
        if self._index:
            separator = "&" if "?" in target else "?"
            target += f"{separator}index={self._index}&wait={round(wait * 1000)}ms"
            # The server adds up to a sixteenth, so that waits do not end together.
            patience = wait * 17 / 16 + self._calls.limits.read_timeout
        question = Question("GET", target, repeatable=True, patience=patience)
        reply = await self._calls.expect(question, 404)
        self._advance(reply)
        return reply

    def _advance(self, reply: Reply) -> None:
        text = reply.header(INDEX)
        if text is None or not text.isdigit():
            raise Refused(reply.status, f"There is nothing to watch: {reply.sentence}")
        index = int(text)
        # An index that goes back is that of a restored cluster: begin anew.
        self._index = max(1, index) if index >= self._index else 0
