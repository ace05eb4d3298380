"""Answers, and the refusals that become answers.

Every failure answer is one plain sentence. One of 500 and above says in the header
`X-Txraft-Outcome` what became of the request: `not-applied`, and a retry is safe;
`unknown`, and it may yet take effect; `applied`, and only its answer is missing; or
`refused`, and a retry would be refused again.

The status is the one that Consul has, and its clients look for: 500 for whatever goes
wrong, be it for ever. So nobody here decides by it what to do, but by the header. An
answer of 503 has `Retry-After`: this node has too much to do, others may not.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

from twisted.internet.interfaces import IPushProducer
from twisted.web.http import Request
from zope.interface import implementer

from txraft.errors import (
    ApplicationError,
    ConfigurationRefused,
    EntryTooLarge,
    RaftError,
    UnknownPeer,
)
from txraft.kv.once import SequenceUsed
from txraft.kv.operations import TransactionTooLarge

OUTCOME = b"X-Txraft-Outcome"
NOT_APPLIED = (OUTCOME, b"not-applied")
UNKNOWN = (OUTCOME, b"unknown")
APPLIED = (OUTCOME, b"applied")
REFUSED = (OUTCOME, b"refused")
NOSNIFF = (b"X-Content-Type-Options", b"nosniff")
RETRY_AFTER = (b"Retry-After", b"1")
JSON = (b"Content-Type", b"application/json")
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")

PIECE_BYTES = 1 << 16
"""Bytes of a long body that are handed to the connection at once."""

LONG_BYTES = 2 * PIECE_BYTES
"""A longer body is a long one."""

Header = tuple[bytes, bytes]


class Answer:
    """A whole response: *status*, *body* and what headers it needs."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, *headers: Header) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the header *name*, written as it was given."""
        return next((value for key, value in self.headers if key == name), None)

    def write(self, request: Request) -> None:
        """Send this as the response to *request* and finish it."""
        request.setResponseCode(self.status)
        set_header = request.responseHeaders.setRawHeaders
        for name, value in self.headers:
            set_header(name, [value])
        set_header(NOSNIFF[0], [NOSNIFF[1]])
        pieces = self._body()
        set_header(b"Content-Length", [b"%d" % sum(map(len, pieces))])
        if len(pieces) > 1:
            Sender(request, pieces).start()
        else:
            request.write(pieces[0])
            request.finish()

    def discard(self) -> None:
        """Do what is left to do when nobody waits for this answer any more."""

    def _body(self) -> Sequence[bytes]:
        """Return the body, in pieces if it is long."""
        return [self.body] if len(self.body) <= LONG_BYTES else _cut(self.body)


class LongAnswer(Answer):
    """A response whose body comes in *pieces*, so that nothing has to join them."""

    __slots__ = ("_pieces",)

    def __init__(self, status: int, pieces: Sequence[bytes], *headers: Header) -> None:
        is_long = sum(map(len, pieces)) > LONG_BYTES
        Answer.__init__(self, status, b"" if is_long else b"".join(pieces), *headers)
        self._pieces = pieces if is_long else ()

    def _body(self) -> Sequence[bytes]:
        return self._pieces or Answer._body(self)


@implementer(IPushProducer)
class Sender:
    """Hands the *pieces* of a body to the connection of *request*, as it takes them.

    To hand over all of them at once would take long: over TLS each is encrypted then.
    """

    def __init__(self, request: Request, pieces: Sequence[bytes]) -> None:
        self._request: Request | None = request
        self._pieces = deque(pieces)
        self._paused = False
        self.left = sum(map(len, pieces))

    def start(self) -> None:
        """Begin."""
        assert self._request is not None, "nothing was sent yet"
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Hand over no more for a while."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on until the connection has enough."""
        self._paused = False
        while self._request is not None and not self._paused:
            if not self._pieces:
                request, self._request = self._request, None
                request.unregisterProducer()
                request.finish()
                return
            piece = self._pieces.popleft()
            self.left -= len(piece)
            self._request.write(piece)

    def stopProducing(self) -> None:
        """Drop the rest: the client is gone."""
        self._request = None
        self._pieces.clear()
        self.left = 0


def _cut(body: bytes) -> list[bytes]:
    starts = range(0, len(body), PIECE_BYTES)
    return [body[start : start + PIECE_BYTES] for start in starts]


TRUE = Answer(200, b"true", JSON)
FALSE = Answer(200, b"false", JSON)


class Refusal(Exception):
    """A request is not served; *answer* says why in one sentence."""

    def __init__(self, status: int, sentence: str, *headers: Header) -> None:
        super().__init__(sentence)
        self.answer = Answer(status, f"{sentence}\n".encode(), TEXT, *headers)


def json_answer(value: object, *headers: Header) -> Answer:
    """Make an answer of *value* as compact JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Answer(200, text.encode(), JSON, *headers)


def not_applied(sentence: str, *headers: Header) -> Refusal:
    """Make a refusal of a request that certainly has no effect.

    With `RETRY_AFTER` it is this node that has no room for it just now.
    """
    status = 503 if RETRY_AFTER in headers else 500
    return Refusal(status, sentence, NOT_APPLIED, *headers)


def unknown(sentence: str) -> Refusal:
    """Make a refusal of a request that may yet take effect."""
    return Refusal(500, sentence, UNKNOWN)


def refused(sentence: str) -> Refusal:
    """Make a refusal for ever, where Consul answers as if something had gone wrong."""
    return Refusal(500, sentence, REFUSED)


def refusal_of(error: RaftError) -> Refusal:
    """Tell a client of *error*, honest about what became of its request."""
    if isinstance(error, UnknownPeer):
        return Refusal(404, str(error))
    if isinstance(error, ConfigurationRefused):
        return Refusal(409, str(error))
    if isinstance(error, EntryTooLarge):
        return Refusal(413, str(error))
    if isinstance(error, SequenceUsed):
        return Refusal(409, str(error))
    if isinstance(error, TransactionTooLarge):
        return Refusal(413, str(error))
    if isinstance(error, ApplicationError):
        return Refusal(400, str(error))
    if error.outcome == "unknown":
        return unknown(f"The outcome is unknown: {error}")
    return not_applied(f"Nothing was changed: {error}")
