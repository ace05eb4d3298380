"""Answers, and the refusals that become answers.

Each answer to a failed request is one plain sentence. From status 500 on, the header
`X-Txraft-Outcome` names the outcome of the request:

not-applied   it had no effect, and a retry is safe
unknown       it may still take effect
applied       it took effect; only its answer is missing
refused       a retry would be refused again

The status is that of Consul, because its clients look at it: 500 for every failure,
even a final one. So code here decides by the header and never by the status. An answer
of 503 has `Retry-After`: this node has too much to do, but others may not.
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
"""Bytes of a long body given to the connection at once."""

LONG_BYTES = 2 * PIECE_BYTES
"""Bodies of more bytes are sent in pieces."""

Header = tuple[bytes, bytes]


class Answer:
    """A whole response: *status*, *body* and headers."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, *headers: Header) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the header *name*, in this letter case; None without."""
        return next((value for key, value in self.headers if key == name), None)

    def write(self, request: Request) -> None:
        """Send this answer as the response to *request*, and finish the request."""
        request.setResponseCode(self.status)
        set_header = request.responseHeaders.setRawHeaders
        for name, value in self.headers:
            set_header(name, [value])
        set_header(NOSNIFF[0], [NOSNIFF[1]])
        pieces = self._body()
        set_header(b"Content-Length", [b"%d" % sum(map(len, pieces))])
        # For speed: nearly every answer is short, and needs no producer.
        if len(pieces) > 1:
            Sender(request, pieces).start()
        else:
            request.write(pieces[0])
            request.finish()

    def discard(self) -> None:
        """Clean up an answer that nobody waits for any more."""

    def _body(self) -> Sequence[bytes]:
        """Return the body, in pieces if it is long."""
        return [self.body] if len(self.body) <= LONG_BYTES else _cut(self.body)


class LongAnswer(Answer):
    """A response whose body is in *pieces*, so that a long body is never joined."""

    __slots__ = ("_pieces",)

    def __init__(self, status: int, pieces: Sequence[bytes], *headers: Header) -> None:
        # A short body is joined after all: one write instead of one for each piece.
        is_long = sum(map(len, pieces)) > LONG_BYTES
        Answer.__init__(self, status, b"" if is_long else b"".join(pieces), *headers)
        self._pieces = pieces if is_long else ()

    def _body(self) -> Sequence[bytes]:
        return self._pieces or Answer._body(self)


@implementer(IPushProducer)
class Sender:
    """Gives the *pieces* of a body to the connection of *request*, as it takes them.

    All at once would be a long turn of the reactor: TLS encrypts what it is given.
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
        """Give nothing more to the connection for a while."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on until the connection has enough."""
        self._paused = False
        while self._request is not None and not self._paused:
            # Cleared before `finish`, which may call back into this producer.
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


# Answers without state of their own: each may be sent many times.
TRUE = Answer(200, b"true", JSON)
FALSE = Answer(200, b"false", JSON)


class HTTPRefusal(Exception):
    """The request is not served; *answer* gives the reason in one sentence."""

    def __init__(self, status: int, sentence: str, *headers: Header) -> None:
        super().__init__(sentence)
        self.answer = Answer(status, f"{sentence}\n".encode(), TEXT, *headers)


def json_answer(value: object, *headers: Header) -> Answer:
    """Make an answer of *value* as compact JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Answer(200, text.encode(), JSON, *headers)


def not_applied(sentence: str, *headers: Header) -> HTTPRefusal:
    """Make the refusal of a request that certainly has no effect.

    With `RETRY_AFTER` among the *headers*, this node lacks room just now: status 503.
    """
    status = 503 if RETRY_AFTER in headers else 500
    return HTTPRefusal(status, sentence, NOT_APPLIED, *headers)


def unknown(sentence: str) -> HTTPRefusal:
    """Make the refusal of a request that may still take effect."""
    return HTTPRefusal(500, sentence, UNKNOWN)


def refused(sentence: str) -> HTTPRefusal:
    """Make a final refusal where Consul answers with status 500."""
    return HTTPRefusal(500, sentence, REFUSED)


def refusal_of(error: RaftError) -> HTTPRefusal:
    """Make the refusal for *error*, with what is known of the outcome."""
    # Subclasses of ApplicationError come before it.
    if isinstance(error, UnknownPeer):
        return HTTPRefusal(404, str(error))
    if isinstance(error, ConfigurationRefused):
        return HTTPRefusal(409, str(error))
    if isinstance(error, EntryTooLarge):
        return HTTPRefusal(413, str(error))
    if isinstance(error, SequenceUsed):
        return HTTPRefusal(409, str(error))
    if isinstance(error, TransactionTooLarge):
        return HTTPRefusal(413, str(error))
    if isinstance(error, ApplicationError):
        return HTTPRefusal(400, str(error))
    if error.outcome == "unknown":
        return unknown(f"The outcome is unknown: {error}")
    return not_applied(f"Nothing was changed: {error}")
