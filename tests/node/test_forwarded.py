"""Answers of a leader to members whose commands it appended."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.messages import (
    NOT_APPENDED,
    UNKNOWN,
    AnyRequest,
    AnyResponse,
    ForwardRequest,
    ForwardResponse,
    Header,
    Place,
)
from txraft.interfaces import SnapshotBody
from txraft.node.forwarded import Forwarded
from txraft.node.pending import Pending

HEADER = Header(1)


class Asked:
    """A request for commands, which notes its answers."""

    body: SnapshotBody | None = None
    connection: object = None

    def __init__(self, *commands: bytes) -> None:
        self.request = ForwardRequest(commands, HEADER)
        self.command: AnyRequest = self.request
        self.answers: list[AnyResponse] = []

    def respond(self, response: AnyResponse) -> None:
        self.answers.append(response)

    def fail(self, error: str) -> None:
        raise AssertionError(error)


class Places(SynchronousTestCase):
    """Two commands are at 4 and 5, of term 2, in a log whose terms are `terms`."""

    def setUp(self) -> None:
        self.terms = {4: 2, 5: 2}
        self.forwarded = Forwarded(Pending(10, 100), 100, HEADER, self.terms.get)
        self.asked = Asked(b"one", b"two")
        self.forwarded.take(self.asked, self.asked.request)
        [message] = self.forwarded.queued
        self.forwarded.queued.clear()
        for index, entry in enumerate(message.entries, 4):
            entry.index, entry.term = index, 2
        self.forwarded.keep([message], None)

    def places(self) -> tuple[Place, ...]:
        [answer] = self.asked.answers
        assert isinstance(answer, ForwardResponse)
        return answer.places

    def test_committed(self) -> None:
        """They are answered together, once the last of them is committed."""
        self.forwarded.committed(4)
        self.assertEqual(self.asked.answers, [])

        self.forwarded.committed(5)

        self.assertEqual(self.places(), ((4, 2), (5, 2)))

    def test_leadership_lost_in_between(self) -> None:
        """What is committed has its place, and of the rest nobody knows."""
        self.forwarded.leadership_lost(4, "b")

        self.assertEqual(self.places(), ((4, 2), UNKNOWN))

    def test_leadership_lost_to_one_who_replaced_an_entry(self) -> None:
        """A successor may commit another entry at that index: no place is told.

        Whoever asked may have been cut off together with this node, and still have the
        entry: with its place it would commit it. Source: dissertation §3.6.2.
        """
        self.terms[5] = 3

        self.forwarded.leadership_lost(6, "b")

        self.assertEqual(self.places(), ((4, 2), UNKNOWN))

    def test_leadership_lost_to_one_who_sent_a_snapshot(self) -> None:
        """The log does not know any more which entries were there."""
        self.terms.clear()

        self.forwarded.leadership_lost(6, "b")

        self.assertEqual(self.places(), (UNKNOWN, UNKNOWN))

    def test_not_appended(self) -> None:
        """A command that waited for its turn was certainly not appended."""
        asked = self.asked = Asked(b"three")
        self.forwarded.take(asked, asked.request)

        self.forwarded.leadership_lost(6, "b")

        self.assertEqual(self.places(), (NOT_APPENDED,))
