"""JSON lists as bodies of answers, made in steps and bounded."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from txraft.http.answers import PIECE_BYTES, HTTPRefusal
from txraft.http.limits import HTTPLimits
from txraft.http.slices import Steps


def json_list(
    texts: Iterator[bytes], limits: HTTPLimits | None = None
) -> Steps[list[bytes]]:
    """Join *texts*, each of them JSON, to a list in pieces; no texts make no pieces.

    An empty text ends a step, and so does each full piece. *limits* bound the list.
    Raises: HTTPRefusal
    """
    pieces: list[bytes] = []
    held: list[bytes] = []
    size, room = 0, sys.maxsize if limits is None else limits.max_answer_bytes
    for text in texts:
        if text:
            held.append(text)
            size += len(text) + 1
            room -= len(text) + 1
            if limits is not None and room < 0:
                raise too_much(limits)
        if size > PIECE_BYTES or not text:
            if size > PIECE_BYTES:
                pieces.append((b"," if pieces else b"[") + b",".join(held))
                held, size = [], 0
            yield
    if held:
        pieces.append((b"," if pieces else b"[") + b",".join(held))
    if pieces:
        pieces.append(b"]")
    return pieces


def too_much(limits: HTTPLimits) -> HTTPRefusal:
    """Make the refusal of a read whose answer would be too long."""
    return HTTPRefusal(
        413,
        f"The answer is longer than {limits.max_answer_bytes} bytes: ask for a longer "
        "prefix.",
    )
