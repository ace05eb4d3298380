"""Servers of ours answer what Go servers were captured answering, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from tests.node.test_outbox import HeldTransport
from tests.support.go_captures import load, read_request
from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    Response,
)
from txraft.core.ready import HardState, Heartbeat, OutgoingRequest
from txraft.core.term_index import TermIndex
from txraft.node.outbox import Outbox
from txraft.node.responder import Responder
from txraft.wire.entries import encode_entry
from txraft.wire.membership import decode_peers
from txraft.wire.requests import encode_request
from txraft.wire.responses import encode_error, encode_response

CAPTURES = {"go-0.1.0-pv0": 0, "go-1.1.2-pv1": 1, "go-1.1.2-pv2": 2, "go-1.1.2-pv3": 3}
VOTER = "127.0.0.1:22803"


class Kept:
    """A request that keeps the bytes of its answer."""

    body = None
    command = None

    def __init__(self) -> None:
        self.answer = b""

    def respond(self, response: Response) -> None:
        """Keep *response*."""
        self.answer = encode_response(response)

    def fail(self, error: str) -> None:
        """Keep *error*."""
        self.answer = encode_error(error)


class Exchange:
    """A request that was captured, and its answer: what it says and its bytes."""

    def __init__(self, name: str, case: str, raw: bytes) -> None:
        self.name = f"{name}: {case}"
        self.case = case
        self.request = read_request(raw)
        self.said: dict[str, Any] = {}
        self.answer = b""


def exchanges(name: str, rpc: str) -> Iterator[Exchange]:
    """Go through what was captured of *rpc* in the file *name*."""
    begun: dict[str, Exchange] = {}
    for message in load(name):
        if message["rpc"] != rpc or not message["hex"]:
            continue
        raw, case = bytes.fromhex(message["hex"]), message["case"]
        if message["direction"] == "request":
            begun[case] = Exchange(name, case, raw)
        elif case in begun and message["decoded"]["response"] is not None:
            exchange = begun.pop(case)
            exchange.said = message["decoded"]["response"]
            exchange.answer = raw
            yield exchange


def voter(
    term: int, log: TermIndex, members: Configuration, leader: str | None = None
) -> Consensus:
    """Make a server in *term* with *log*, whose first entry has the *members*.

    With a *leader* it has just heard from it.
    """
    history = ConfigurationHistory(min(1, log.last_index), members)
    consensus = Consensus(
        VOTER, Random(0), hard_state=HardState(term), log=log, configurations=history
    )
    if leader is not None:
        consensus.request(AppendEntriesRequest(term, leader), "heartbeat")
        consensus.ready()
    return consensus


def log_before(request: AppendEntriesRequest, last_index: int) -> TermIndex:
    """Make a log of *last_index* entries that *request* goes on, if it is as long."""
    log = TermIndex()
    for index in range(1, last_index + 1):
        goes_on = request.prev_log_index <= index and index > 1
        log.append(max(1, request.prev_log_term) if goes_on else 1)
    return log


def log_behind(request: RequestVoteRequest | RequestPreVoteRequest) -> TermIndex:
    """Make a log that is not ahead of the candidate's."""
    log = TermIndex()
    for index in range(1, min(2, request.last_log_index) + 1):
        log.append(1 if index == 1 else request.last_log_term)
    return log


class CapturedAnswers(SynchronousTestCase):
    """Given the log, the term and the leader that the Go server had."""

    def check(self, version: int, exchange: Exchange, consensus: Consensus) -> None:
        """Let *consensus* answer, in the form of protocol *version*."""
        kept: Any = Kept()
        replies = Responder(version, "node-3", VOTER)

        consensus.request(exchange.request, kept)
        ready = consensus.ready()
        for to, message in [*ready.send, *ready.after_sync]:
            replies.send(to, message, consensus)  # type: ignore[arg-type]

        self.assertEqual(kept.answer.hex(), exchange.answer.hex(), exchange.name)

    def test_append_entries(self) -> None:
        """Heartbeats, entries, commit updates and rejections of both kinds."""
        checked = 0
        for name, version in CAPTURES.items():
            for exchange in exchanges(name, "AppendEntries"):
                said = exchange.said
                members = Configuration.of_voters([VOTER])
                assert isinstance(exchange.request, AppendEntriesRequest)
                log = log_before(exchange.request, said["LastLog"])
                consensus = voter(said["Term"], log, members)
                self.check(version, exchange, consensus)
                checked += 1
        self.assertGreater(checked, 50)

    def test_request_vote(self) -> None:
        """Granted, refused for a leader that lives, and granted for a transfer."""
        checked = []
        for name, version in CAPTURES.items():
            for exchange in exchanges(name, "RequestVote"):
                assert isinstance(exchange.request, RequestVoteRequest)
                members = self.members(version, exchange)
                is_new = exchange.case == "vote-granted"
                term = exchange.request.term - 1
                leader = None if is_new else "127.0.0.1:1"
                consensus = voter(term, log_behind(exchange.request), members, leader)
                self.check(version, exchange, consensus)
                checked.append(exchange.case)
        self.assertEqual(
            set(checked),
            {"vote-granted", "vote-denied-leader-known", "vote-leadership-transfer"},
        )

    def members(self, version: int, exchange: Exchange) -> Configuration:
        """Make the membership that the answer tells of; version 0 leaves us out."""
        peers = exchange.said["Peers"]
        listed = decode_peers(bytes.fromhex(peers["raw_hex"])) if peers else ()
        own = () if version == 1 else (VOTER,)
        return Configuration.of_voters([*listed, *own])

    def test_request_pre_vote(self) -> None:
        """The newest library's, granted and refused for a leader that lives."""
        checked = []
        for exchange in exchanges("go-1.7.3-pv3", "RequestPreVote"):
            request, is_granted = exchange.request, exchange.said["Granted"]
            assert isinstance(request, RequestPreVoteRequest)
            members = Configuration.of_voters([VOTER, request.candidate])
            term = request.term - 1
            leader = None if is_granted else "127.0.0.1:1"
            consensus = voter(term, log_behind(request), members, leader)
            self.check(3, exchange, consensus)
            checked.append(is_granted)
        self.assertEqual(checked, [True, False])


OURS = {b"Cluster", b"Forwards", b"Incarnation", b"Incarnations"}
"""Keys that Go servers skip. Version 0 has none of them."""


def keys_of(raw: bytes) -> set[bytes]:
    """Read the keys of a request."""
    return set(msgpack.unpackb(raw[1:], raw=True))


class Originated(SynchronousTestCase):
    """The keys of what a node writes of its own are those of a Go server."""

    def sent(self, version: int, request: OutgoingRequest) -> bytes:
        """Send *request* as a server of *version*; return the bytes."""
        transport = HeldTransport()
        replies = Responder(version, "node-3", VOTER, incarnation=bytes(16))
        outbox = Outbox(
            VOTER,
            transport,  # type: ignore[arg-type]
            inbox=self,  # type: ignore[arg-type]
            fetch=lambda first, last: [],
            send_snapshot=lambda peer, request: None,
            patience_ticks=10,
            header=replies.request_header(bytes(16)),
            own_id=lambda: "node-3",
        )
        outbox.send("b:1", request)
        [(_, message, _)] = transport.calls
        return encode_request(message)

    def captured(self, name: str, rpc: str) -> set[bytes]:
        """Return the keys of the requests in a file, which all have the same."""
        found = [
            frozenset(keys_of(bytes.fromhex(message["hex"])))
            for message in load(name)
            if message["rpc"] == rpc and message["direction"] == "request"
        ]
        [keys] = set(found)
        return set(keys)

    def test_requests(self) -> None:
        """0.1.0's at version 0, 1.1.2's at 1 to 3."""
        for name, version in CAPTURES.items():
            for rpc, request in (
                ("AppendEntries", Heartbeat(2, round=1, sent=0, stream=1)),
                ("RequestVote", RequestVoteRequest(2, VOTER, 1, 1)),
            ):
                keys = keys_of(self.sent(version, request))
                extra = OURS & keys if version else set()
                self.assertEqual(keys - extra, self.captured(name, rpc), (name, rpc))

    def test_request_pre_vote(self) -> None:
        """1.7.3's at every version; it always names its sender."""
        expected = self.captured("go-1.7.3-pv3", "RequestPreVote")
        for version in range(4):
            raw = self.sent(version, RequestPreVoteRequest(2, VOTER, 1, 1))
            fields = msgpack.unpackb(raw[1:], raw=True)
            self.assertEqual(fields.keys() - OURS, expected)
            self.assertEqual(
                (fields[b"Addr"], fields[b"ID"], fields[b"ProtocolVersion"]),
                (VOTER.encode(), b"node-3", version),
            )

    def test_entries(self) -> None:
        """Four keys at version 0, as 0.1.0 has, and one more from there on."""
        for name, version in CAPTURES.items():
            for message in load(name):
                if message["rpc"] != "AppendEntries" or not message["hex"]:
                    continue
                for entry in message["decoded"].get("Entries") or []:
                    made = encode_entry(Entry(1, 1, LogType.COMMAND, b"x"), version)
                    keys = {key.decode() for key in msgpack.unpackb(made, raw=True)}
                    self.assertEqual(keys, entry.keys() - {"_type_name"}, name)
