"""One request at work: what it asks for, and what is known of its outcome."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from twisted.web.http import Request

from txraft.http.answers import Refusal

MAX_PARAMETERS = 32
FORWARDED = b"X-Txraft-Forwarded"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Call:
    """A request, its deadlines and its fate.

    *submitted* is true from the moment the request may have reached a log until it
    is known that it has not: it decides between the outcomes `not-applied` and
    `unknown`. *answered* is true once nobody waits for an answer any more.
    """

    __slots__ = (
        "answered",
        "body",
        "deadline",
        "forwarded",
        "key",
        "method",
        "parameters",
        "path",
        "request",
        "submitted",
        "writes",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.method: bytes = request.method
        self.path, _, query = request.uri.partition(b"?")
        self.parameters = parse_parameters(query) if query else {}
        self.forwarded = request.requestHeaders.hasHeader(FORWARDED)
        self.key = ""
        self.body = b""
        self.writes = self.method != b"GET"
        self.submitted = False
        self.answered = False
        self.deadline = 0.0

    def flag(self, name: str) -> bool:
        """Tell whether the parameter *name* is given, as a flag.

        Raises: Refusal when its value says something else than yes.
        """
        value = self.parameters.get(name)
        if value not in (None, "", "1", "true"):
            raise Refusal(400, f"The parameter '{name}' is a flag and takes no value.")
        return value is not None

    def target(self) -> str:
        """Write path and parameters anew, so that a peer reads the same request."""
        encoded = quote(unquote_to_bytes(self.path), safe="/")
        query = urlencode(self.parameters)
        return f"{encoded}?{query}" if query else encoded


def parse_parameters(query: bytes) -> dict[str, str]:
    """Parse a query string, strictly; the same parameter twice must agree.

    Raises: Refusal
    """
    _check_escapes(query)
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise Refusal(400, "The query string is malformed or too long.") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if parameters.setdefault(name, value) != value:
            raise Refusal(400, f"The parameter '{name}' is given twice and differs.")
    return parameters


def parse_key(encoded: bytes, max_bytes: int) -> str:
    """Decode a percent-encoded key, strictly.

    Raises: Refusal
    """
    _check_escapes(encoded)
    raw = unquote_to_bytes(encoded)
    if not raw:
        raise Refusal(400, "Missing key name")
    if len(raw) > max_bytes:
        raise Refusal(414, f"The key has {len(raw)} bytes, at most {max_bytes} fit.")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "The key is not UTF-8.") from None


def _check_escapes(encoded: bytes) -> None:
    if b"%" in encoded and _BAD_ESCAPE.search(encoded):
        raise Refusal(400, "The URL holds a % without two hexadecimal digits.")
    if not encoded.isascii():
        raise Refusal(400, "The URL holds bytes that need percent-encoding.")
