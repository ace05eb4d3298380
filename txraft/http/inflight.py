"""One request at work: its parameters, its deadline and its outcome so far."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import IO
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from twisted.web.http import Request
from twisted.web.iweb import IBodyProducer

from txraft.http.answers import HTTPRefusal
from txraft.http.roles import Role
from txraft.kv.commands import MAX_CLIENT_CHARACTERS, MAX_FLAGS, encode_once

MAX_PARAMETERS = 32
FORWARDED = b"X-Txraft-Forwarded"
CLIENT = b"X-Txraft-Client"
SEQUENCE = b"X-Txraft-Sequence"
WAIT = "X-Txraft-Wait"
DATACENTER = "dc1"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNSIGNED = re.compile(r"[0-9]{1,20}")
_CLIENT = re.compile(rb"[!-~]+")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)")
_MAX_DURATION_CHARACTERS = 32
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


class HTTPCall:
    """A request with its parameters, its deadline and its outcome so far.

    - *submitted* is true from the moment when the request may have reached a log, until
      it is known that it has not. It decides between the outcomes `not-applied` and
      `unknown`.
    - *answered* is true once nobody waits for an answer any more.
    - *waited* is true of a blocking query whose wait is over; *known_index* is the
      index in its request.
    - *once* holds client and sequence number of a write that must be done exactly once.
    - *route* is the part of the path that stands in the table of routes, and *begun*
      the time when work on the request began.
    - *upload* is the file with the body of a long request; *resend* makes the body
      again for another node.
    """

    __slots__ = (
        "answered",
        "begun",
        "body",
        "deadline",
        "forwarded",
        "key",
        "known_index",
        "method",
        "once",
        "parameters",
        "path",
        "request",
        "resend",
        "role",
        "route",
        "submitted",
        "upload",
        "waited",
        "writes",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.method: bytes = request.method
        self.path, _, query = request.uri.partition(b"?")
        self.writes = self.method not in (b"GET", b"OPTIONS")
        self.parameters = parse_parameters(query, self.writes) if query else {}
        self.forwarded = request.requestHeaders.hasHeader(FORWARDED)
        self.role = Role.OPERATOR
        self.key = ""
        self.body = b""
        self.upload: IO[bytes] | None = None
        self.resend: Callable[[], IBodyProducer] | None = None
        # A read is not done once: its answer would be kept on every replica.
        self.once = _once(request) if self.writes else None
        self.submitted = False
        self.answered = False
        self.route = self.path
        self.begun = 0.0
        self.waited = False
        self.known_index = 0
        self.deadline = 0.0

    def flag(self, name: str) -> bool:
        """Return whether the flag *name* is given.

        Raises: HTTPRefusal for a write, if the value is anything but yes
        """
        # A misread flag of a write, such as `?recurse=false`, destroys something. For a
        # read the name is enough, as in Consul: clients write `?recurse=None`.
        value = self.parameters.get(name)
        if self.writes and value not in (None, "", "1", "true", "True"):
            raise HTTPRefusal(
                400, f"The parameter '{name}' is a flag and takes no value."
            )
        return value is not None

    def number(self, name: str) -> int | None:
        """Return the parameter *name*, an unsigned 64-bit integer; None without one.

        Raises: HTTPRefusal if it is anything else
        """
        text = self.parameters.get(name)
        if text is None:
            return None
        if not _UNSIGNED.fullmatch(text) or int(text) > MAX_FLAGS:
            raise HTTPRefusal(
                400, f"The parameter '{name}' is an unsigned 64-bit integer."
            )
        return int(text)

    def command(self, command: bytes, level: int) -> bytes:
        """Return *command*, wrapped to be done exactly once if the call asks for that.

        *level* is the level that is active where the command is proposed.
        """
        return command if self.once is None else encode_once(*self.once, command, level)

    def target(self) -> str:
        """Return path and query, encoded so that a peer reads the same request."""
        encoded = quote(unquote_to_bytes(self.path), safe="/")
        query = urlencode(self.parameters)
        return f"{encoded}?{query}" if query else encoded


def parse_parameters(query: bytes, strict: bool = True) -> dict[str, str]:
    """Parse a query string.

    If a parameter is given twice, both values must agree if *strict*; else the first
    one counts.
    Raises: HTTPRefusal
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
        raise HTTPRefusal(400, "The query string is malformed or too long.") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if parameters.setdefault(name, value) != value and strict:
            raise HTTPRefusal(
                400, f"The parameter '{name}' is given twice and differs."
            )
    return parameters


def parse_key(encoded: bytes, max_bytes: int) -> str:
    """Decode a percent-encoded key strictly; it may be empty.

    Raises: HTTPRefusal
    """
    _check_escapes(encoded)
    raw = unquote_to_bytes(encoded)
    if len(raw) > max_bytes:
        raise HTTPRefusal(
            414, f"The key has {len(raw)} bytes, at most {max_bytes} fit."
        )
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise HTTPRefusal(400, "The key is not UTF-8.") from None


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as `1m30s`; None for other texts."""
    if text == "0":
        return 0.0
    # The length first: a number of hundreds of digits would be infinite.
    if len(text) > _MAX_DURATION_CHARACTERS or not _DURATION.fullmatch(text):
        return None
    parts = _DURATION_PART.findall(text)
    return float(sum(float(number) * _UNITS[unit] for number, unit in parts))


def format_duration(seconds: float) -> str:
    """Write a duration as Go does, such as `1m30s` or `250ms`."""
    whole, left = divmod(round(seconds * 1e9), 1_000_000_000)
    if not whole and left:
        for unit, size in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
            if left >= size:
                return f"{left / size:.12g}{unit}"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest}{f'{left / 1e9:.9f}'[1:].rstrip('0').rstrip('.')}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _once(request: Request) -> tuple[str, int] | None:
    headers = request.requestHeaders
    clients = headers.getRawHeaders(CLIENT)
    sequences = headers.getRawHeaders(SEQUENCE)
    if clients is None and sequences is None:
        return None
    if clients is None or sequences is None:
        raise HTTPRefusal(400, "A write that is done once has a client and a sequence.")
    if len(clients) > 1 or len(sequences) > 1:
        name = (CLIENT if len(clients) > 1 else SEQUENCE).decode("ascii")
        raise HTTPRefusal(400, f"{name} is given twice.")
    client, sequence = clients[0], sequences[0].decode("latin-1")
    if len(client) > MAX_CLIENT_CHARACTERS or not _CLIENT.fullmatch(client):
        raise HTTPRefusal(
            400,
            f"{CLIENT.decode()} is 1 to {MAX_CLIENT_CHARACTERS} printable characters.",
        )
    if not _UNSIGNED.fullmatch(sequence) or not 0 < int(sequence) <= MAX_FLAGS:
        raise HTTPRefusal(400, f"{SEQUENCE.decode()} is an integer from 1, of 64 bits.")
    return client.decode("ascii"), int(sequence)


def _check_escapes(encoded: bytes) -> None:
    if b"%" in encoded and _BAD_ESCAPE.search(encoded):
        raise HTTPRefusal(400, "The URL holds a % without two hexadecimal digits.")
    if not encoded.isascii():
        raise HTTPRefusal(400, "The URL holds bytes that need percent-encoding.")
