"""Answers, and the refusals that become answers.

Every failure answer is one plain sentence. One of 500 and above says in the header
`X-Txraft-Outcome` what became of the request: `not-applied`, and a retry is safe;
`unknown`, and it may yet take effect; or `applied`, and only its answer is missing.
"""

from __future__ import annotations

import json

from twisted.web.http import Request

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
NOSNIFF = (b"X-Content-Type-Options", b"nosniff")
JSON = (b"Content-Type", b"application/json")
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")

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
        set_header(b"Content-Length", [b"%d" % len(self.body)])
        request.write(self.body)
        request.finish()

    def discard(self) -> None:
        """Do what is left to do when nobody waits for this answer any more."""


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
    """Make a refusal of a request that certainly has no effect."""
    return Refusal(503, sentence, NOT_APPLIED, *headers)


def unknown(sentence: str) -> Refusal:
    """Make a refusal of a request that may yet take effect."""
    return Refusal(504, sentence, UNKNOWN)


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
