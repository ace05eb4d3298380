"""JSON bodies of requests: parse them strictly, with names in any letter case."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from txraft.http.answers import HTTPRefusal
from txraft.http.inflight import parse_duration
from txraft.kv.commands import MAX_FLAGS, MAX_NAME_CHARACTERS


def parse_json(body: bytes) -> object:
    """Parse *body*; an empty one stands for null.

    Raises: HTTPRefusal
    """
    if not body.strip():
        return None
    try:
        value: object = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HTTPRefusal(400, "The body is not JSON in UTF-8.") from error
    return value


class Fields:
    """The members of a JSON object, whose names match in any letter case."""

    def __init__(self, value: object, what: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise HTTPRefusal(400, f"{what} is not a JSON object.")
        self._what = what
        self._given = [str(name) for name in value]
        self._members: dict[str, Any] = {str(k).lower(): v for k, v in value.items()}

    def get(self, name: str) -> Any:
        """Return the member *name* as it is, None if it is absent or null."""
        return self._members.get(name.lower())

    def has(self, name: str) -> bool:
        """Return whether the member *name* is present, also as null."""
        return name.lower() in self._members

    def members(self) -> dict[str, str]:
        """Return all members, each of which must be a text. Raises: HTTPRefusal"""
        return {name: self.text(name) for name in self._given}

    def text(self, name: str, most: int = MAX_NAME_CHARACTERS) -> str:
        """Return the member *name*, a text of at most *most* characters, or ""."""
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > most or not _is_utf8(value):
            raise HTTPRefusal(
                400, f"{name} of {self._what} is not a text, or too long."
            )
        return value

    def number(self, name: str) -> int:
        """Return the member *name*, an unsigned 64-bit integer, or 0."""
        value = self.get(name)
        if value is None:
            return 0
        if type(value) is not int or not 0 <= value <= MAX_FLAGS:
            raise HTTPRefusal(
                400, f"{name} of {self._what} is not an unsigned 64-bit integer."
            )
        return value

    def seconds(self, name: str) -> float | None:
        """Return the member *name*, a duration, in seconds; None if it is absent.

        A number below 1000 is seconds, as in Consul; a larger one is nanoseconds.
        """
        value = self.get(name)
        if value is None or value == "":
            return None
        seconds: float | None = None
        if isinstance(value, str):
            seconds = parse_duration(value)
        elif type(value) in (int, float) and 0 <= value <= MAX_FLAGS:
            seconds = float(value) if value < 1000 else value / 1e9
        if seconds is None:
            raise HTTPRefusal(
                400, f"{name} of {self._what} is not a duration such as 15s."
            )
        return seconds

    def texts(self, name: str) -> list[str]:
        """Return the member *name*, a list of texts, or an empty one."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise HTTPRefusal(400, f"{name} of {self._what} is not a list of texts.")
        return value


def _is_utf8(text: str) -> bool:
    """Return whether *text* can be encoded: JSON can hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
