"""Messages that even a member with a true certificate may not send."""

from __future__ import annotations

import os
import socket
import ssl

import trustme

from tests.support.hostile_members import (
    PATIENCE,
    SecureCluster,
    Speaker,
    client_context,
    dial,
    encoded,
    forward,
    heartbeat,
    identity,
    members_of,
    port_of,
    pre_vote,
    read_to_end,
    wait,
)
from txraft.core.configuration import Configuration
from txraft.core.messages import (
    AnyRequest,
    ForwardRequest,
    Header,
    InstallSnapshotRequest,
    RequestVoteRequest,
    TimeoutNowRequest,
)


class Messages(SecureCluster):
    def speaker(self) -> Speaker:
        """Come with the certificate of the member that is absent."""
        speaker = Speaker(self.members[0], self.absent)
        self.addCleanup(speaker.close)
        return speaker

    def refused(self, reason: str, *requests: AnyRequest | bytes) -> None:
        """Assert that the last of *requests* closes the connection for *reason*."""
        speaker = self.speaker()
        for request in requests[:-1]:
            speaker.say(request)
            self.assertNotEqual(speaker.hear(), b"")
        speaker.say(requests[-1])
        self.assertEqual(read_to_end(speaker.secure), b"")
        self.assertOneLine(speaker.victim, speaker.port, reason)
        self.assertCommits()

    def test_member_is_heard(self) -> None:
        """The same connection with the right name works: else nothing is proved."""
        speaker = self.speaker()
        for _ in range(3):
            speaker.say(pre_vote(self.absent.address))
            self.assertIn(b"Granted", speaker.hear())

    def test_heartbeat_of_another(self) -> None:
        self.refused("but it speaks as", heartbeat(self.members[1].address))

    def test_vote_of_another(self) -> None:
        other = self.members[1].address
        self.refused("but it speaks as", RequestVoteRequest(1 << 30, other, 1, 1))

    def test_pre_vote_of_another(self) -> None:
        self.refused("but it speaks as", pre_vote(self.members[1].address))

    def test_snapshot_of_another(self) -> None:
        other = self.members[1].address
        configuration = Configuration.of_voters([other])
        snapshot = InstallSnapshotRequest(
            1 << 30, other, 1 << 20, 1, 1 << 30, configuration, 1, (other,)
        )
        self.refused("but it speaks as", snapshot)

    def test_another_after_oneself(self) -> None:
        """The identity belongs to the connection, not to its first message."""
        self.refused(
            "came on the connection of",
            pre_vote(self.absent.address),
            heartbeat(self.members[1].address),
        )

    def test_two_senders_in_one_message(self) -> None:
        header = Header(1, id="x", address=self.members[1].address)
        message = heartbeat(self.absent.address, header=header)
        self.refused("names two senders", message)

    def test_nobody(self) -> None:
        self.refused("no address", heartbeat("nobody"))

    def test_line_feed_in_sender(self) -> None:
        self.refused("no address", heartbeat("n4\nforged:1"))

    def test_member_under_a_new_address(self) -> None:
        """A certificate is good for the address that has its name, no other."""
        self.refused("but it speaks as", heartbeat("127.0.0.1:1"))

    def test_stranger_with_a_true_name(self) -> None:
        """Whoever the authority signed is no member while there is a leader."""
        pair = self.forge.issue("stranger.cluster.test")
        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        with client_context(pair).wrap_socket(plain) as secure:
            secure.sendall(encoded(heartbeat("stranger.cluster.test:8300")))
            self.assertEqual(read_to_end(secure), b"")
        self.assertOneLine(victim, port, "which is no member")
        self.assertCommits()

    def test_timeout_now_of_a_stranger(self) -> None:
        """A message without sender is its certificate's."""
        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        pair = self.forge.issue("stranger.cluster.test")
        with client_context(pair).wrap_socket(plain) as secure:
            secure.sendall(encoded(TimeoutNowRequest(Header(1))))
            self.assertEqual(read_to_end(secure), b"")
        self.assertOneLine(victim, port, "who is no member")
        self.assertCommits()

    def test_forward_of_a_member(self) -> None:
        """Its commands are taken, or it is told who leads: else nothing is proved."""
        speaker = self.speaker()
        speaker.say(forward(self.absent.address))
        self.assertIn(b"Places", speaker.hear())

    def test_forward_of_another(self) -> None:
        """Nobody has the leader append in the name of another member."""
        self.refused("but it speaks as", forward(self.members[1].address))

    def test_forward_of_a_stranger(self) -> None:
        """Only members may ask, whoever has signed for them."""
        victim = self.members[0]
        pair = self.forge.issue("stranger.cluster.test")
        for sender, reason in (
            ("stranger.cluster.test:8300", "which is no member"),
            ("", "who is no member"),
        ):
            plain = dial(victim)
            port = port_of(plain)
            with client_context(pair).wrap_socket(plain) as secure:
                secure.sendall(encoded(forward(sender)))
                self.assertEqual(read_to_end(secure), b"")
            self.assertOneLine(victim, port, reason)
        self.assertCommits()

    def test_forward_of_too_many_commands(self) -> None:
        many = ForwardRequest([b""] * 1025, Header(1, address=self.absent.address))
        self.refused("1025 commands are forwarded at once", many)

    def test_garbage(self) -> None:
        self.refused("unknown request type 255", b"\xff")

    def test_frame_of_two_gibibytes(self) -> None:
        """Its length is refused as soon as it is there; nothing is waited for."""
        for header in (b"\xc6\x80\0\0\0", b"\xdb\x80\0\0\0", b"\xc9\x80\0\0\0"):
            message = b"\x00\x81\xa7Entries" + header + bytes(8)
            self.refused("a message is larger than 67108864 bytes", message)

    def test_map_of_four_billion(self) -> None:
        message = b"\x00\x81\xa7Entries\xdf\xff\xff\xff\xff"
        self.refused("not a message of a peer", message)

    def test_list_of_four_billion(self) -> None:
        self.refused(
            "not a message of a peer", b"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff"
        )

    def test_truncated_connection(self) -> None:
        """A connection that is cut without a farewell carries nothing half."""
        speaker = self.speaker()
        speaker.say(encoded(heartbeat(self.absent.address))[:20])
        speaker.close()
        self.assertCommits()

    def test_plain_after_the_handshake(self) -> None:
        """Nothing that is not encrypted is heard on a connection that was."""
        speaker = self.speaker()
        speaker.say(pre_vote(self.absent.address))
        self.assertNotEqual(speaker.hear(), b"")
        with socket.socket(fileno=os.dup(speaker.secure.fileno())) as plain:
            plain.settimeout(PATIENCE)
            plain.sendall(encoded(heartbeat(self.absent.address)))
            read_to_end(plain)
        self.assertOneLine(speaker.victim, speaker.port, "its TLS failed: ")
        self.assertCommits()

    def test_too_many_connections(self) -> None:
        """One member has so many connections, and one more ends its oldest."""
        speakers = []
        for _ in range(33):
            speaker = self.speaker()
            speaker.say(pre_vote(self.absent.address))
            self.assertNotEqual(speaker.hear(), b"")
            speakers.append(speaker)
        self.assertEqual(read_to_end(speakers[0].secure), b"")
        first = speakers[0]
        self.assertOneLine(first.victim, first.port, "more than 32 connections of")
        speakers[-1].say(pre_vote(self.absent.address))
        self.assertNotEqual(speakers[-1].hear(), b"")
        self.assertCommits()


class Removed(SecureCluster):
    def test_connection_ends_with_membership(self) -> None:
        """What a removed member has open is closed, and it is not let in again."""
        leader = self.leader()
        assert leader is not None
        speaker = Speaker(leader, self.absent)
        self.addCleanup(speaker.close)
        speaker.say(pre_vote(self.absent.address))
        self.assertNotEqual(speaker.hear(), b"")

        path = f"/v1/operator/raft/peer?address={self.absent.address}"
        self.assertEqual(leader.request("DELETE", path)[0], 200)

        wait(lambda: self.absent.address not in members_of(leader), self.all_logs)
        self.assertEqual(read_to_end(speaker.secure), b"")
        self.assertOneLine(leader, speaker.port, "which is no member any more")
        again = Speaker(leader, self.absent)
        self.addCleanup(again.close)
        again.say(heartbeat(self.absent.address))
        self.assertEqual(read_to_end(again.secure), b"")
        self.assertOneLine(leader, again.port, "which is no member")
        self.assertCommits()


class Rotation(SecureCluster):
    def test_new_certificates_under_load(self) -> None:
        """Certificates change while writes go on; nothing that is open is closed."""
        speaker = Speaker(self.members[0], self.absent)
        self.addCleanup(speaker.close)
        speaker.say(pre_vote(self.absent.address))
        before = served_by(speaker)

        for member in self.members:
            assert member.pair is not None
            new = self.forge.issue(f"{member.name}.cluster.test")
            member.pair.certificate.write_bytes(new.certificate.read_bytes())
            member.pair.key.write_bytes(new.key.read_bytes())
            member.hang_up()
            for _ in range(20):
                self.assertCommits()
        for member in self.members:
            wait(lambda m=member: bool(m.lines("were reread")), self.all_logs)  # type: ignore[misc]

        self.assertNotEqual(speaker.hear(), b"")
        speaker.say(pre_vote(self.absent.address))
        self.assertNotEqual(speaker.hear(), b"")
        fresh = Speaker(self.members[0], self.absent)
        self.addCleanup(fresh.close)
        self.assertNotEqual(served_by(fresh), before)
        self.assertCommits()

    def test_new_authority_under_load(self) -> None:
        """Both count while one replaces the other; then the old one does no more."""
        new, old = trustme.CA(), self.forge.ca
        pems = [authority.cert_pem.bytes() for authority in (old, new)]
        stolen = self.forge.issue(identity(self.absent))

        self.trust(b"".join(pems))
        for member in self.members:
            assert member.pair is not None
            pair = self.forge.issue(identity(member), ca=new)
            member.pair.certificate.write_bytes(pair.certificate.read_bytes())
            member.pair.key.write_bytes(pair.key.read_bytes())
        self.trust(b"".join(pems))
        self.trust(pems[1])
        type(self).forge.ca = new

        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        with client_context(stolen).wrap_socket(plain) as secure:
            secure.sendall(encoded(heartbeat(self.absent.address)))
            self.assertEqual(read_to_end(secure), b"")
        self.assertOneLine(victim, port, "an authority that is not the cluster's")
        self.absent.pair = self.forge.issue(identity(self.absent))
        fresh = Speaker(victim, self.absent)
        self.addCleanup(fresh.close)
        fresh.say(pre_vote(self.absent.address))
        self.assertNotEqual(fresh.hear(), b"")
        self.assertCommits()

    def trust(self, authorities: bytes) -> None:
        """Let all members trust *authorities*, and commit meanwhile."""
        self.forge.ca_file.write_bytes(authorities)
        for member in self.members:
            mark = len(member.log)
            member.hang_up()
            for _ in range(5):
                self.assertCommits()
            wait(
                lambda m=member, s=mark: bool(m.lines("were reread", since=s)),  # type: ignore[misc]
                self.all_logs,
            )

    def test_broken_file_leaves_the_old(self) -> None:
        """A file that cannot be used is named, and the one before stays in force."""
        member = self.members[1]
        assert member.pair is not None
        good = member.pair.certificate.read_bytes()
        self.addCleanup(member.pair.certificate.write_bytes, good)
        for broken, reason in (
            (b"", "is not a certificate"),
            (good[:100], "is not a certificate"),
            (other(self, "web.test"), "is not the key of the certificate"),
        ):
            mark = len(member.log)
            member.pair.certificate.write_bytes(broken)
            member.hang_up()
            words = ("Not reloaded", reason)
            wait(
                lambda m=mark, w=words: bool(member.lines(*w, since=m)),  # type: ignore[misc]
                lambda: member.log,
            )
            speaker = Speaker(member, self.absent)
            speaker.close()
        self.assertCommits()


def served_by(speaker: Speaker) -> bytes | None:
    """Return the certificate that the victim shows."""
    found = speaker.secure.getpeercert(binary_form=True)
    assert isinstance(speaker.secure, ssl.SSLSocket)
    return found


def other(case: SecureCluster, name: str) -> bytes:
    """Make a certificate for *name*."""
    return case.forge.issue(name).certificate.read_bytes()
