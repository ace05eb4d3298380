"""Encodes JSON as Go does: without spaces, with the escapes of Go's encoder."""

from __future__ import annotations

import json

_ESCAPES = str.maketrans(
    {
        character: f"\\u{ord(character):04x}"
        for character in ("<", ">", "&", "\u2028", "\u2029")
    }
)


def dump_json(value: object) -> bytes:
    """Encode *value* as one line; bytes that are not UTF-8 pass through strings."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode("utf-8", "surrogateescape") + b"\n"


def load_json(data: bytes) -> object:
    """Decode a document. Raises: ValueError"""
    try:
        value: object = json.loads(data.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value
