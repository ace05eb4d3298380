"""A sender is who its certificate says, and a member while there is a leader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import Forge
from txraft.core.configuration import Configuration
from txraft.core.messages import (
    AppendEntriesRequest,
    Header,
    Request,
    RequestVoteRequest,
    TimeoutNowRequest,
)
from txraft.errors import ProtocolError
from txraft.transport.identity import Identity, PeerNames
from txraft.transport.identity_check import IdentityCheck, claimed_sender, shown

PATIENCE = 2.0
MEMBERS = Configuration.of_voters(["n1.test:8300", "n2.test:8300", "n3.test:8300"])


@dataclass
class Node:
    """What one node knows of its cluster: a `Members`."""

    address: str = "n1.test:8300"
    configuration: Configuration = MEMBERS
    leader: str | None = None
    last_contact: float | None = None


class CheckCase(SynchronousTestCase):
    """A node whose peer n2 is known as db2.test."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        self.forge = Forge(directory)
        self.clock = Clock()
        self.node = Node()
        names = PeerNames({"n2.test:8300": "db2.test"})
        self.check = IdentityCheck(names, self.node, self.clock.seconds, PATIENCE)

    def identity(self, *names: str) -> Identity:
        """Return what a connection with a certificate for *names* proves."""
        pem = self.forge.issue(*names).certificate.read_bytes()
        return Identity(x509.load_pem_x509_certificate(pem))

    def refused(self, sender: str, identity: Identity | None) -> str:
        """Return why *sender* is refused."""
        return str(self.assertRaises(ProtocolError, self.check.check, sender, identity))


class Names(CheckCase):
    def test_member(self) -> None:
        """A member is the host of its address, or what `server_names` says instead."""
        self.check.check("n3.test:8300", self.identity("n3.test"))
        self.check.check("n2.test:8300", self.identity("other.test", "db2.test"))

    def test_member_as_another(self) -> None:
        """A member cannot speak as another, nor by the host that a name replaces."""
        for name in ("n3.test", "n2.test"):
            reason = self.refused("n2.test:8300", self.identity(name))
            self.assertEqual(
                reason,
                f"its certificate is for {name}, but it speaks as 'n2.test:8300', "
                "whose certificate is for 'db2.test'",
            )

    def test_this_node(self) -> None:
        """Nobody speaks as this node, not even with a certificate for its name."""
        reason = self.refused("n1.test:8300", self.identity("n1.test"))

        self.assertEqual(reason, "it speaks as this node itself, n1.test:8300")

    def test_no_certificate(self) -> None:
        """Without a certificate nobody is anybody."""
        self.assertEqual(self.refused("n3.test:8300", None), "it has no certificate")

    def test_no_address(self) -> None:
        """What is no address is quoted, so that it cannot forge lines of a log."""
        reason = self.refused("n3\nroot logged in", self.identity("n3.test"))

        self.assertEqual(reason, r"it speaks as 'n3\nroot logged in', no address")
        self.assertLess(len(shown("x" * 10_000)), 100)

    def test_sender_named(self) -> None:
        """A message without a sender is from the member that the certificate names."""
        self.assertEqual(
            self.check.sender_named(self.identity("db2.test")), "n2.test:8300"
        )
        for identity in (self.identity("n2.test"), None):
            self.assertRaises(ProtocolError, self.check.sender_named, identity)


class Strangers(CheckCase):
    """Who is outside the membership in force here.  Source: §4.1, §4.2.3"""

    def setUp(self) -> None:
        super().setUp()
        self.stranger = self.identity("n9.test")
        self.sender = "n9.test:8300"

    def test_without_a_leader(self) -> None:
        """It is accepted while no leader is known: its vote may be needed."""
        self.check.check(self.sender, self.stranger)

    def test_under_a_leader(self) -> None:
        """It is refused while the leader is heard, and then no longer."""
        self.node.leader, self.node.last_contact = "n2.test:8300", 0.0

        reason = self.refused(self.sender, self.stranger)
        self.clock.advance(PATIENCE)

        self.assertEqual(reason, "it speaks as 'n9.test:8300', which is no member")
        self.check.check(self.sender, self.stranger)

    def test_that_leads(self) -> None:
        """The leader itself may be one: the entry that adds it comes from it."""
        self.node.leader, self.node.last_contact = self.sender, 0.0

        self.check.check(self.sender, self.stranger)

    def test_member_under_a_leader(self) -> None:
        """A member is never taken for one."""
        self.node.leader, self.node.last_contact = "n2.test:8300", 0.0

        self.check.check("n3.test:8300", self.identity("n3.test"))


class ClaimedSenders(SynchronousTestCase):
    """The sender that a request names, in either of two places."""

    def test_one(self) -> None:
        """Both places may have it, or one."""
        header = Header(3, address="a:1")
        requests: list[Request] = [
            AppendEntriesRequest(1, "a:1"),
            AppendEntriesRequest(1, "a:1", header=header),
            RequestVoteRequest(1, "a:1", 0, 0),
            TimeoutNowRequest(header=header),
        ]

        self.assertEqual({claimed_sender(each) for each in requests}, {"a:1"})

    def test_none(self) -> None:
        """An old peer's order to campaign names nobody."""
        self.assertIsNone(claimed_sender(TimeoutNowRequest(header=Header(0))))

    def test_two(self) -> None:
        """A message that names two is from neither."""
        request = AppendEntriesRequest(1, "b:1", header=Header(3, address="a:1"))

        error = self.assertRaises(ProtocolError, claimed_sender, request)

        self.assertEqual(str(error), "a message names two senders, 'b:1' and 'a:1'")
