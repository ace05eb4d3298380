"""Answers in the form of each protocol version, and requests that are refused."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.messages import (
    NO_HEADER,
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    TimeoutNowResponse,
)
from txraft.core.ready import Refusal
from txraft.node.responder import SHUT_DOWN, VERSION_REFUSED, Responder

MEMBERS = ConfigurationHistory(1, Configuration.of_voters(["a", "b", "c"]))


class Body:
    def __init__(self) -> None:
        self.drained = False

    def drain(self) -> None:
        self.drained = True


class KeptRPC:
    """Keeps how it was answered."""

    def __init__(self, body: Body | None = None, command: object = None) -> None:
        self.body = body
        self.command = command
        self.answers: list[Response | str] = []

    def respond(self, response: Response) -> None:
        self.answers.append(response)

    def fail(self, error: str) -> None:
        self.answers.append(error)


class RepliesCase(SynchronousTestCase):
    def answer(self, version: int, message: Response | Refusal) -> Any:
        """Answer with *message* as a server of *version*; return what left."""
        rpc: Any = KeptRPC()
        consensus = Consensus("a", Random(0), configurations=MEMBERS)
        Responder(version, "id-a", "a").send(rpc, message, consensus)
        [answer] = rpc.answers
        return answer

    def test_one_who_asks_who_is_here_is_told_all(self) -> None:
        """Address, id, cluster and incarnation; nothing at version 0."""
        question = AppendEntriesRequest(0, "b")
        for version in (0, 1, 3):
            rpc: Any = KeptRPC(command=question)
            consensus = Consensus("a", Random(0), configurations=MEMBERS)
            consensus.cluster = b"c" * 16
            replies = Responder(version, "id-a", "a", incarnation=b"i" * 16, level=2)

            replies.send(rpc, AppendEntriesResponse(2, 7, False), consensus)

            told = Header(version, "id-a", "a", b"c" * 16, b"i" * 16, level=2)
            header = told if version else NO_HEADER
            self.assertEqual(
                rpc.answers, [AppendEntriesResponse(2, 7, False, header=header)]
            )

    def refused(self, version: int, header: Header) -> str | None:
        request = RequestVoteRequest(2, "b", 0, 0, header=header)
        return Responder(version, "a", "a").refuses(request)


class Dressing(RepliesCase):
    def test_headers(self) -> None:
        """Version 0 has none; a snapshot's and a TimeoutNow's answer say 0."""
        vote = RequestVoteResponse(2, True)
        entries = AppendEntriesResponse(2, 7, True, True)
        for version in (1, 2, 3):
            self.assertEqual(self.answer(version, vote).header, Header(version))
            self.assertEqual(
                self.answer(version, entries),
                AppendEntriesResponse(2, 7, True, True, Header(version)),
            )
            for message in (InstallSnapshotResponse(2, True), TimeoutNowResponse()):
                self.assertEqual(self.answer(version, message).header, Header(0))
        for message in (vote, entries, InstallSnapshotResponse(2, True)):
            self.assertEqual(self.answer(0, message).header, NO_HEADER)

    def test_pre_vote_names_its_sender(self) -> None:
        """By id and address, at every version."""
        answer = self.answer(3, RequestPreVoteResponse(2, True))
        self.assertEqual(answer.header, Header(3, "id-a", "a"))

    def test_peers_of_a_vote(self) -> None:
        """Version 0 leaves itself out, 1 lists all, later ones none."""
        vote = RequestVoteResponse(2, False)
        self.assertEqual(self.answer(0, vote).peers, ("b", "c"))
        self.assertEqual(self.answer(1, vote).peers, ("a", "b", "c"))
        self.assertIsNone(self.answer(2, vote).peers)
        self.assertIsNone(self.answer(3, vote).peers)

    def test_refusal_is_an_error_text(self) -> None:
        """And no response."""
        self.assertEqual(self.answer(1, Refusal("because")), "because")


class Refusing(RepliesCase):
    def test_versions_understood(self) -> None:
        """From one below ours up to the newest there is."""
        for version in range(4):
            for other in range(5):
                served = version - 1 <= other <= 3
                expected = None if served else VERSION_REFUSED
                self.assertEqual(self.refused(version, Header(other)), expected)
        self.assertIsNone(self.refused(1, NO_HEADER))
        self.assertEqual(self.refused(2, NO_HEADER), VERSION_REFUSED)

    def test_heartbeats_are_never_refused(self) -> None:
        """Go peers do not check them either."""
        heartbeat = AppendEntriesRequest(2, "b", header=Header(9))
        self.assertIsNone(Responder(3, "a", "a").refuses(heartbeat))

    def test_snapshots_of_unknown_versions(self) -> None:
        """0 and 1 are served at every protocol version, others never."""
        for snapshot_version, expected in (
            (0, None),
            (1, None),
            (2, "unsupported snapshot version 2"),
            (-1, "unsupported snapshot version -1"),
        ):
            request = InstallSnapshotRequest(
                2,
                "b",
                9,
                1,
                3,
                Configuration(),
                0,
                snapshot_version=snapshot_version,
                header=Header(3),
            )
            for version in range(4):
                found = Responder(version, "a", "a").refuses(request)
                self.assertEqual(found, expected)


class Bodies(RepliesCase):
    def test_body_is_dropped_unless_it_is_taken(self) -> None:
        """Or the connection would be out of step."""
        consensus = Consensus("a", Random(0), configurations=MEMBERS)
        replies = Responder(1, "a", "a")
        refused: Any = KeptRPC(Body())
        answered: Any = KeptRPC(Body())

        replies.refuse(refused, "no")
        replies.send(answered, InstallSnapshotResponse(2, False), consensus)

        self.assertTrue(refused.body.drained)
        self.assertTrue(answered.body.drained)

    def test_abandoned_answers_become_errors(self) -> None:
        """Of a node that stops: what waits for a write is never claimed."""
        rpc: Any = KeptRPC()
        waiting = [(4, [(rpc, RequestVoteResponse(2, True)), ("b", Refusal("x"))])]

        Responder(1, "a", "a").abandon(waiting)

        self.assertEqual(rpc.answers, [SHUT_DOWN])
