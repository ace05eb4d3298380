"""Servers of ours answer what Go servers were captured answering, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.captures import load, read_request
from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.log import Log
from txraft.core.messages import (
    AppendEntriesRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    Response,
)
from txraft.core.ready import HardState
from txraft.node.replies import Replies
from txraft.wire.membership import decode_peers
from txraft.wire.responses import encode_error, encode_response

CAPTURES = {"go-0.1.0-pv0": 0, "go-1.1.2-pv1": 1, "go-1.1.2-pv2": 2, "go-1.1.2-pv3": 3}
VOTER = "127.0.0.1:22803"


class Kept:
    """A request that keeps the bytes of its answer."""

    body = None

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
    term: int, log: Log, members: Configuration, leader: str | None = None
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


def log_before(request: AppendEntriesRequest, last_index: int) -> Log:
    """Make a log of *last_index* entries that *request* goes on, if it is as long."""
    log = Log()
    for index in range(1, last_index + 1):
        goes_on = request.prev_log_index <= index and index > 1
        log.append(max(1, request.prev_log_term) if goes_on else 1)
    return log


def log_behind(request: RequestVoteRequest | RequestPreVoteRequest) -> Log:
    """Make a log that is not ahead of the candidate's."""
    log = Log()
    for index in range(1, min(2, request.last_log_index) + 1):
        log.append(1 if index == 1 else request.last_log_term)
    return log


class CapturedAnswers(SynchronousTestCase):
    """Given the log, the term and the leader that the Go server had."""

    def check(self, version: int, exchange: Exchange, consensus: Consensus) -> None:
        """Let *consensus* answer, in the form of protocol *version*."""
        kept: Any = Kept()
        replies = Replies(version, "node-3", VOTER)

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
