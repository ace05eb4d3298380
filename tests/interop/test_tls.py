"""Clusters of Go and Python servers whose connections are all mutual TLS."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from tests.interop import test_faults, test_snapshots
from tests.interop.cluster import InteropTestCase
from tests.interop.processes import (
    PATIENCE,
    Certificate,
    Member,
    free_address,
    wait_until,
)
from txraft.cli.certificates import init_authority, issue_certificate
from txraft.core.messages import AppendEntriesRequest, Header
from txraft.wire.requests import encode_request

OTHER_NAME = "127.0.0.99"
REACHES = {
    ("go", "authority"): "certificate signed by unknown authority",
    ("go", "name"): f"certificate is valid for {OTHER_NAME}",
    ("python", "authority"): "is from an authority that is not the cluster's",
    ("python", "name"): f"its certificate is for {OTHER_NAME}, but",
}
"""What a server of a kind logs of one that it dials in vain."""

LISTENS = {
    ("go", "authority"): ("decode incoming command", "unknown authority"),
    ("python", "authority"): ("connection from", "an authority that is not"),
    ("python", "name"): ("connection from", f"is for {OTHER_NAME}, but it speaks as"),
}
"""What it logs of one that dials it. Go's library cannot compare names there."""


class SecuredTestCase(InteropTestCase):
    """Gives each member an IP address of its own, and a certificate for it."""

    def setUp(self) -> None:
        super().setUp()
        self.authority, _ = init_authority(self.directory / "authority")

    def new_address(self) -> str:
        """Choose an IP address that no other member has."""
        return free_address(f"127.0.0.{10 + len(self.members)}")

    def make(self, kind: str, protocol: int, **config: Any) -> Member:
        """Make a member with the certificate that it should have."""
        member = super().make(kind, protocol, **config)
        host = member.address.partition(":")[0]
        member.certificate = self.issue(self.authority.parent, host)
        return member

    def issue(self, directory: Path, name: str) -> Certificate:
        """Issue a certificate; whoever shows it trusts the cluster's authority."""
        certificate, _ = issue_certificate(directory, [name])
        return Certificate(certificate.with_suffix(""), self.authority)


class Snapshots(SecuredTestCase, test_snapshots.Snapshots):
    """Leaders of each kind commit, and send a snapshot to the other kind."""

    def check(self, protocol: int) -> None:
        """Nothing is sent in the clear."""
        super().check(protocol)

        for member in self.members:
            self.assertFalse(answers_in_the_clear(member))


class PreVote(SecuredTestCase, test_faults.PreVote):
    """A Go server hangs up on a pre-vote, which is no refusal of the connection."""


class Strangers(SecuredTestCase):
    """A server without the right certificate takes no part, and later does."""

    def check(self, kinds: list[str], wrong: str) -> None:
        """Start the last of *kinds* again, with a certificate that is *wrong*.

        The first one leads. It must not reach the last one, and those who check must
        not listen to it: what it does without a leader disturbs nobody. Hanging up on
        it is not taken for a pre-vote that is granted: its term stays.
        """
        leader, other, last = self.form(kinds, 3)
        self.make_lead(leader)
        self.load(leader, "with it", 100)
        had = self.wait_equal()["count"]
        last.ask("snapshot")  # so all this is on its disk
        last.kill()
        right, last.certificate = last.certificate, self.wrong_for(last, wrong)
        term = leader.ask("status")["term"]

        last.start()
        self.load(leader, "without it", 100)

        self.wait_for_line(leader, REACHES[leader.kind, wrong], last.address)
        for member in (leader, other):
            if (member.kind, wrong) in LISTENS:
                self.wait_for_line(member, *LISTENS[member.kind, wrong])
        self.assertEqual(last.ask("applied")["count"], had)
        if (last.kind, wrong) == ("python", "authority"):
            self.assertEqual(last.ask("status")["term"], term)
        self.assertEqual(leader.ask("status")["term"], term)
        last.kill()
        last.certificate = right
        last.start()
        self.check_counted()

    def wrong_for(self, member: Member, wrong: str) -> Certificate:
        """Issue a certificate that *member* should not have."""
        host = member.address.partition(":")[0]
        if wrong == "name":
            return self.issue(self.authority.parent, OTHER_NAME)
        init_authority(self.directory / "another")
        return self.issue(self.directory / "another", host)

    def wait_for_line(self, member: Member, *texts: str) -> None:
        """Wait until *member* has logged a line that has all *texts*."""

        def logged() -> bool:
            lines = member.log.splitlines()
            return any(all(text in line for text in texts) for line in lines)

        try:
            wait_until(f"{member.id} says {texts}", logged)
        except AssertionError as error:
            logs = "\n".join(f"{m.id}:\n{m.told[-3000:]}" for m in self.members)
            raise AssertionError(f"{error}\n{logs}") from None

    def test_python_of_another_authority_under_go(self) -> None:
        """Neither Go nor Python takes a certificate of somebody else."""
        self.check(["go", "python", "python"], "authority")

    def test_go_of_another_authority_under_python(self) -> None:
        """Neither Python nor Go takes a certificate of somebody else."""
        self.check(["python", "go", "go"], "authority")

    def test_python_of_another_name_under_go(self) -> None:
        """Who dials checks the name; who listens does so in Python."""
        self.check(["go", "python", "python"], "name")

    def test_go_of_another_name_under_python(self) -> None:
        """Who dials checks the name; who listens does so in Python."""
        self.check(["python", "go", "go"], "name")


def answers_in_the_clear(member: Member) -> bool:
    """Tell whether *member* answers a heartbeat that is not encrypted."""
    host, port = member.address.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as peer:
        peer.sendall(encode_request(AppendEntriesRequest(1, "a:1", header=Header(1))))
        try:
            return peer.recv(1) == b"\xa0"
        except ConnectionError:
            return False
