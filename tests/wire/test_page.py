"""The manual's page of the wire format names each key that is written, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.wire import fields
from txraft.wire.requests import encode_request
from txraft.wire.responses import encode_response

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "wire.rst"
HEADER = Header(3, "n1", "n1:1", b"cluster", b"incarnation", b"known", 1, 1)
CONFIGURATION = Configuration.of_voters(["n1:1"])
ENTRY = Entry(1, 1, LogType.COMMAND, b"data")
REQUESTS: dict[str, AnyRequest] = {
    "AppendEntries": AppendEntriesRequest(1, "n1:1", 0, 0, [ENTRY], 1, HEADER),
    "RequestVote": RequestVoteRequest(1, "n1:1", 1, 1, True, HEADER),
    "RequestPreVote": RequestPreVoteRequest(1, "n1:1", 1, 1, HEADER, 7),
    "InstallSnapshot": InstallSnapshotRequest(
        1, "n1:1", 1, 1, 9, CONFIGURATION, 1, ("n1:1",), 1, HEADER, b"\x90", "mine"
    ),
    "TimeoutNow": TimeoutNowRequest(HEADER, 7),
    "Forward": ForwardRequest([b"command"], HEADER),
}
RESPONSES: dict[str, AnyResponse] = {
    "AppendEntries": AppendEntriesResponse(1, 1, True, True, HEADER),
    "RequestVote": RequestVoteResponse(1, True, ("n1:1",), HEADER),
    "RequestPreVote": RequestPreVoteResponse(1, True, HEADER),
    "InstallSnapshot": InstallSnapshotResponse(1, True, HEADER),
    "TimeoutNow": TimeoutNowResponse(HEADER),
    "Forward": ForwardResponse([(1, 1)], "n1:1", HEADER),
}


def last_map(encoded: bytes) -> set[str]:
    """Return the keys of the map at the end of *encoded*."""
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(encoded)
    *_, message = unpacker
    return {key.decode() for key in message}


def keys_named() -> dict[str, tuple[set[str], set[str]]]:
    """Read the page's table: Go's keys and ours of each message."""
    text = PAGE.read_text().partition("Keys of the messages\n---")[2]
    table = text.partition("\nSettings\n")[0]
    rows = {}
    for row in re.split(r"^   \* - ", table, flags=re.MULTILINE)[2:]:
        name, theirs, ours = re.split(r"^     -", row, flags=re.MULTILINE)
        found = (set(re.findall(r"``(\w+)``", cell)) for cell in (theirs, ours))
        rows[name.strip()] = (next(found), next(found))
    return rows


class Keys(SynchronousTestCase):
    """What the page names is what the encoders write."""

    def test_header(self) -> None:
        theirs, ours = keys_named()["header, in all of them"]

        written = {key.decode() for key in fields.header_fields(HEADER)}
        self.assertEqual(theirs | ours, written)
        self.assertEqual(ours, {key.decode() for key in fields._OUR_KEYS})

    def test_messages(self) -> None:
        named = keys_named()
        header = set.union(*named.pop("header, in all of them"))
        written = {
            name: last_map(encode_request(request)[1:]) - header
            for name, request in REQUESTS.items()
        }
        for name, response in RESPONSES.items():
            keys = last_map(encode_response(response)) - header
            written[f"answer to {name}"] = keys

        self.assertEqual(
            {name: set.union(*keys) for name, keys in named.items()}, written
        )
