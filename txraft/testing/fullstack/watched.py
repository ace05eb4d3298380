"""A transport and a log that report what leaves a node and what it has stored.

Both are the node's own classes with a look at requests, answers and entries. `Claims`
checks that what a message promises is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from txraft.core.entry import Entry
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.interfaces import IncomingRPC, RPCHandler, Syncable
from txraft.storage.filelog import FileLog
from txraft.transport.network import NetworkTransport

Asks = Callable[[str, AnyRequest], None]
Answers = Callable[[AnyRequest, AnyResponse], None]
Stored = Callable[[int | None, Sequence[Entry]], None]


class WatchedTransport(NetworkTransport):
    """A transport that reports vote requests to `asks` and answers to `answers`."""

    asks: Asks
    answers: Answers

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver requests to *handler*, and report its answers."""
        super().set_handler(_WatchedHandler(handler, self.answers))

    def request_vote(
        self, target: str, request: RequestVoteRequest
    ) -> Deferred[RequestVoteResponse]:
        """Report the request, and send it."""
        self.asks(target, request)
        return super().request_vote(target, request)


class _WatchedHandler:
    def __init__(self, handler: RPCHandler, answers: Answers) -> None:
        self._handler = handler
        self._answers = answers

    def rpc_received(self, rpc: IncomingRPC) -> None:
        self._handler.rpc_received(_WatchedRPC(rpc, self._answers))

    def connection_closed(self, connection: object) -> None:
        self._handler.connection_closed(connection)


class _WatchedRPC:
    def __init__(self, rpc: IncomingRPC, answers: Answers) -> None:
        self.command = rpc.command
        self.body: Any = rpc.body
        self.connection = rpc.connection
        self._rpc = rpc
        self._answers = answers

    def respond(self, response: AnyResponse) -> None:
        self._answers(self.command, response)
        self._rpc.respond(response)

    def fail(self, error: str) -> None:
        self._rpc.fail(error)


class WatchedLog(FileLog):
    """A log on disk that calls `stored` with entries it has stored.

    The first argument is the term of the entry before them, None if it is unknown.
    """

    stored: Stored
    _unsaid: tuple[int | None, Sequence[Entry]]

    def store_logs(self, entries: Sequence[Entry]) -> None:
        """Store *entries*, and report them."""
        before = self._term_at(entries[0].index - 1) if entries else None
        super().store_logs(entries)
        if entries:
            self.stored(before, entries)

    def write_logs(self, entries: Sequence[Entry]) -> Syncable | None:
        """Write *entries*; they are reported when they are synced."""
        self._unsaid = (self._term_at(entries[0].index - 1), entries)
        return super().write_logs(entries)

    def logs_synced(self, error: BaseException | None = None) -> None:
        """Report the entries of the last write, unless its sync failed."""
        super().logs_synced(error)
        if error is None:
            self.stored(*self._unsaid)

    def _term_at(self, index: int) -> int | None:
        """Return the term of the entry at *index*; None if it is not in the log."""
        if not index:
            return 0
        if not self.first_index() <= index <= self.last_index():
            return None
        return [term for first, term in self.term_runs() if first <= index][-1]
