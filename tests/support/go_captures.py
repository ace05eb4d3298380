"""Bytes that Go peers of three library versions exchanged and accept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from txraft.core.messages import Request, Response
from txraft.wire.requests import request_kind
from txraft.wire.stream import RequestReader, ResponseReader

DATA = Path(__file__).parents[1] / "wire" / "data"
CAPTURES = (
    "go-0.1.0-pv0",
    "go-1.1.2-pv1",
    "go-1.1.2-pv2",
    "go-1.1.2-pv3",
    "go-1.7.3-pv3",
    "mixed-0.1.0-and-1.1.2-pv1",
    "go-errors",
)
KINDS = {
    "AppendEntries": 0,
    "RequestVote": 1,
    "InstallSnapshot": 2,
    "TimeoutNow": 3,
    "RequestPreVote": 4,
}


def load(name: str) -> Any:
    """Read one file of captured data."""
    return json.loads((DATA / f"{name}.json").read_text())


def messages(direction: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """List all captured messages of one *direction*, with the name of their file."""
    for name in CAPTURES:
        for message in load(name):
            if message["direction"] == direction and message["hex"]:
                yield f"{name}: {message['case']}", message


def read_request(data: bytes, step: int = 1 << 20) -> Request:
    """Read exactly one request, fed *step* bytes at a time."""
    reader = RequestReader()
    found = []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        request = reader.read()
        if request is not None:
            found.append(request)
    assert len(found) == 1, found
    assert reader.pending_bytes == 0
    return found[0]


def read_response(
    kind: int, data: bytes, step: int = 1 << 20
) -> tuple[str, Response | None]:
    """Read exactly one answer, fed *step* bytes at a time."""
    reader = ResponseReader()
    found = []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        answer = reader.read(kind)
        if answer is not None:
            found.append(answer)
    assert len(found) == 1, found
    assert reader.pending_bytes == 0
    return found[0]


def kind_of(request: Request) -> int:
    """Return the type byte that *request* travels with."""
    return request_kind(request)
