"""`Watch`: wait for changes by one blocking query after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.task import deferLater

from txraft.client.attempts import ClientCalls
from txraft.client.errors import Refused, Unavailable
from txraft.client.exchange import NodeRequest, NodeResponse

T = TypeVar("T")
INDEX = "X-Consul-Index"


class Watch(Generic[T]):
    """An endless asynchronous iterator over the states of what *target* names.

    The first state is the present one. Consecutive states differ; states between them
    may be left out. Nothing is requested while nobody iterates; leave the loop to end
    the watch. While no node answers, the watch goes on trying.
    """

    def __init__(
        self,
        calls: ClientCalls,
        target: str,
        parse: Callable[[NodeResponse], T],
        index: int = 0,
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
            # A list, as the state may be None. An index also moves when something else
            # below the prefix, or the very same value, was written.
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

    async def _poll(self) -> NodeResponse:
        wait = self._calls.limits.watch_wait
        target, patience = self._target, None
        if self._index:
            separator = "&" if "?" in target else "?"
            target += f"{separator}index={self._index}&wait={round(wait * 1000)}ms"
            # The server adds up to a sixteenth, so that waits do not end all at once.
            patience = wait * 17 / 16 + self._calls.limits.read_timeout
        request = NodeRequest("GET", target, repeatable=True, patience=patience)
        response = await self._calls.expect(request, 404)
        self._advance(response)
        return response

    def _advance(self, response: NodeResponse) -> None:
        text = response.header(INDEX)
        if text is None or not text.isdigit():
            raise Refused(
                response.status, f"There is nothing to watch: {response.sentence}"
            )
        index = int(text)
        # An index that goes back is that of a restored cluster: begin anew, else the
        # next query would wait until the new indexes have passed the old one.
        self._index = max(1, index) if index >= self._index else 0
