"""Callers that are no members: each is refused, with its reason."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
import warnings
from collections.abc import Sequence

import trustme
from OpenSSL import SSL

from tests.support.forgery import CLIENT, DAY, SERVER, SIGNING, Pair
from tests.support.hostile_members import (
    PATIENCE,
    Member,
    SecureCluster,
    Speaker,
    client_context,
    dial,
    encoded,
    heartbeat,
    identity,
    port_of,
    read_to_end,
)

AUTHORITY = "an authority that is not the cluster's"


class Callers(SecureCluster):
    def refused(
        self, pair: Pair | None, reason: str, context: ssl.SSLContext | None = None
    ) -> None:
        """Assert that a caller with *pair* is closed for *reason*, and heard by nobody.

        It speaks as the absent member, in the hope to depose the leader.
        """
        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        context = context or client_context(pair)
        try:
            with context.wrap_socket(plain, server_hostname=identity(victim)) as secure:
                secure.sendall(encoded(heartbeat(self.absent.address)))
                self.assertEqual(read_to_end(secure), b"")
        except (ssl.SSLError, ConnectionError):
            pass  # with TLS 1.2 a caller learns it within the handshake
        finally:
            plain.close()
        self.assertOneLine(victim, port, reason)
        self.assertCommits()

    def name(self) -> str:
        """Return the name of the absent member, which attackers would like to be."""
        return identity(self.absent)

    # Certificates

    def test_no_certificate(self) -> None:
        self.refused(None, "peer did not return a certificate")

    def test_other_authority(self) -> None:
        pair = self.forge.issue(self.name(), ca=trustme.CA())
        self.refused(pair, AUTHORITY)

    def test_other_authority_of_the_same_name(self) -> None:
        """An authority is its key; what it calls itself counts for nothing."""
        twin = trustme.CA(organization_name="trustme")
        self.refused(self.forge.issue(self.name(), ca=twin), AUTHORITY)

    def test_self_signed(self) -> None:
        pair = self.forge.issue(self.name(), self_signed=True)
        self.refused(pair, "signed by itself")

    def test_signed_by_a_member(self) -> None:
        """A member's certificate is no authority."""
        member = self.members[1].pair
        assert member is not None
        false_ca = trustme.CA.from_pem(
            member.certificate.read_bytes(), member.key.read_bytes()
        )
        pair = self.forge.issue(self.name(), ca=false_ca, common_name="intruder")
        chain = pair.certificate.read_bytes() + member.certificate.read_bytes()
        pair.certificate.write_bytes(chain)
        self.refused(pair, "no authority")

    def test_expired(self) -> None:
        pair = self.forge.issue(self.name(), begins=-2 * DAY, ends=-DAY)
        self.refused(pair, "has expired")

    def test_not_yet_valid(self) -> None:
        pair = self.forge.issue(self.name(), begins=DAY, ends=2 * DAY)
        self.refused(pair, "not valid yet")

    def test_common_name_only(self) -> None:
        pair = self.forge.issue(common_name=self.name())
        self.refused(pair, "no subject alternative name")

    def test_common_name_beside_another_name(self) -> None:
        pair = self.forge.issue("other.test", common_name=self.name())
        self.refused(pair, "certificate is for other.test, but it speaks as")

    def test_name_of_nobody(self) -> None:
        """That the authority signed it is not enough."""
        pair = self.forge.issue("web.cluster.test")
        self.refused(pair, "certificate is for web.cluster.test, but it speaks as")

    def test_name_of_another_member(self) -> None:
        pair = self.forge.issue(identity(self.members[1]))
        self.refused(pair, "certificate is for n2.cluster.test, but it speaks as")

    def test_address_instead_of_name(self) -> None:
        """The host of an address is no identity where a name was given for it."""
        pair = self.forge.issue("127.0.0.1")
        self.refused(pair, "certificate is for 127.0.0.1, but it speaks as")

    def test_name_as_prefix(self) -> None:
        pair = self.forge.issue(f"{self.name()}.evil.test")
        self.refused(pair, "but it speaks as")

    def test_name_as_suffix(self) -> None:
        self.refused(self.forge.issue(f"evil.{self.name()}"), "but it speaks as")

    def test_wildcard(self) -> None:
        self.refused(self.forge.issue("*.cluster.test"), "for a wildcard")

    def test_wildcard_beside_the_right_name(self) -> None:
        """Whoever may be anybody is nobody."""
        pair = self.forge.issue(self.name(), "*.cluster.test")
        self.refused(pair, "for a wildcard")

    def test_partial_wildcard(self) -> None:
        self.refused(self.forge.issue("n*.cluster.test"), "for a wildcard")

    def test_nul_in_name(self) -> None:
        pair = self.forge.issue(f"{self.name()}\0.evil.test")
        self.refused(pair, "its certificate")

    def test_line_feed_in_name(self) -> None:
        """A name cannot forge lines of the log."""
        pair = self.forge.issue(f"{self.name()}\nforged")
        self.refused(pair, "its certificate")

    def test_empty_name(self) -> None:
        self.refused(self.forge.issue(""), "its certificate")

    def test_name_as_uri(self) -> None:
        pair = self.forge.issue(f"raft://{self.name()}")
        self.refused(pair, "names no host and no IP address")

    def test_name_as_mail_address(self) -> None:
        pair = self.forge.issue(f"raft@{self.name()}")
        self.refused(pair, "names no host and no IP address")

    def test_client_only(self) -> None:
        """A certificate for clients of HTTP makes nobody a peer."""
        pair = self.forge.issue(self.name(), uses=CLIENT)
        self.refused(pair, "needs both clientAuth and serverAuth")

    def test_server_only(self) -> None:
        pair = self.forge.issue(self.name(), uses=SERVER)
        self.refused(pair, "not for this use")

    def test_other_use(self) -> None:
        pair = self.forge.issue(self.name(), uses=SIGNING)
        self.refused(pair, "not for this use")

    def test_authority_as_peer(self) -> None:
        pair = self.forge.issue(self.name(), is_ca=True)
        self.refused(pair, "its certificate")

    def test_own_certificate(self) -> None:
        """A copy of this very node is none of its peers."""
        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        with client_context(victim.pair).wrap_socket(plain) as secure:
            secure.sendall(encoded(heartbeat(victim.address)))
            self.assertEqual(read_to_end(secure), b"")
        self.assertOneLine(victim, port, "speaks as this node itself")
        self.assertCommits()

    # Versions and ciphers

    def version(self, version: ssl.TLSVersion) -> None:
        context = client_context(self.absent.pair)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        self.refused(None, "unsupported protocol", context)

    def test_tls_1_0(self) -> None:
        self.version(ssl.TLSVersion.TLSv1)

    def test_tls_1_1(self) -> None:
        self.version(ssl.TLSVersion.TLSv1_1)

    def cipher(self, ciphers: str) -> None:
        context = client_context(self.absent.pair)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        self.refused(None, "no shared cipher", context)

    def test_cipher_without_authentication(self) -> None:
        self.cipher("aNULL")

    def test_cipher_without_forward_secrecy(self) -> None:
        self.cipher("kRSA")

    def test_cipher_in_cbc_mode(self) -> None:
        self.cipher("ECDHE+AES+SHA1")

    def test_tls_1_2_with_no_certificate(self) -> None:
        context = client_context(None)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.refused(None, "peer did not return a certificate", context)

    def test_tls_1_2_with_another_authority(self) -> None:
        context = client_context(self.forge.issue(self.name(), ca=trustme.CA()))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.refused(None, AUTHORITY, context)

    # Bytes that are no handshake, or half of one

    def raw(self, data: bytes, reason: str, close: bool = False) -> None:
        """Assert that plain *data* on a connection end it for *reason*."""
        victim = self.members[0]
        with dial(victim) as plain:
            plain.sendall(data)
            if close:
                plain.shutdown(socket.SHUT_WR)
            read_to_end(plain)
            self.assertOneLine(victim, port_of(plain), reason)
        self.assertCommits()

    def test_plain_message(self) -> None:
        """A peer without TLS is not heard by one that has it."""
        message = encoded(heartbeat(self.absent.address))
        self.raw(message, "TLS handshake failed")

    def test_http(self) -> None:
        self.raw(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n", "http request")

    def test_random_bytes(self) -> None:
        self.raw(b"\xff" + os.urandom(4096), "TLS handshake failed")

    def test_endless_record(self) -> None:
        """A record that announces more than TLS allows is not waited for."""
        self.raw(b"\x16\x03\x01\xff\xff" + bytes(100), "TLS handshake failed")

    def test_truncated_hello(self) -> None:
        self.raw(hello()[:60], "closed the connection within", close=True)

    def test_flipped_hello(self) -> None:
        data = bytearray(hello())
        data[5] ^= 0xFF
        self.raw(bytes(data), "TLS handshake failed")

    def test_renegotiation(self) -> None:
        """Who was judged once cannot become another."""
        victim = self.members[0]
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        assert self.absent.pair is not None
        context.use_certificate_file(str(self.absent.pair.certificate))
        context.use_privatekey_file(str(self.absent.pair.key))
        plain = dial(victim)
        plain.settimeout(None)
        port = port_of(plain)
        secure = SSL.Connection(context, plain)
        secure.set_connect_state()
        secure.do_handshake()
        secure.renegotiate()
        with self.assertRaises(SSL.Error):
            secure.do_handshake()
            secure.recv(1)
        self.assertOneLine(victim, port, "it asked to renegotiate")
        plain.close()
        self.assertCommits()


class SlowCallers(SecureCluster):
    """Peers and HTTP clients who hold a connection and send nothing that counts."""

    handshake = "2s"

    @classmethod
    def configure(cls, member: Member, every: Sequence[Member]) -> None:
        """Give clients a second for a request."""
        super().configure(member, every)
        path = cls.directory / f"{member.name}.yaml"
        path.write_text(path.read_text().replace("{max_w", "{read_timeout: 1s, max_w"))

    def test_nothing_at_all(self) -> None:
        """A connection that is silent ends after the time for a handshake."""
        victim = self.members[0]
        with dial(victim) as plain:
            read_to_end(plain)
            self.assertOneLine(
                victim, port_of(plain), "handshake did not end within 2 s"
            )
        self.assertCommits()

    def test_drip_fed_handshake(self) -> None:
        """No byte now and then keeps a handshake alive."""
        victim = self.members[0]
        with dial(victim) as plain:
            plain.settimeout(0.05)
            for byte in hello():
                try:
                    plain.sendall(bytes([byte]))
                    if not plain.recv(1):
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            self.assertOneLine(victim, port_of(plain), "handshake did not end within")
        self.assertCommits()

    def test_silence_after_the_handshake(self) -> None:
        """A certificate alone holds no connection: a request must follow."""
        victim = self.members[0]
        plain = dial(victim)
        port = port_of(plain)
        with client_context(self.absent.pair).wrap_socket(plain) as secure:
            self.assertEqual(read_to_end(secure), b"")
        self.assertOneLine(victim, port, "it sent no request within 2 s")
        self.assertCommits()

    def test_truncated_message(self) -> None:
        """A certificate gives no right to begin messages and never end them."""
        speaker = Speaker(self.members[0], self.absent)
        self.addCleanup(speaker.close)
        speaker.say(encoded(heartbeat(self.absent.address))[:20])
        self.assertEqual(read_to_end(speaker.secure), b"")
        self.assertOneLine(speaker.victim, speaker.port, "no request within 2 s")
        self.assertCommits()

    def test_drip_fed_request(self) -> None:
        """No byte now and then keeps a request open."""
        head = b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost"
        request = head + b"\r\nContent-Length: 100\r\n\r\n"
        for head in (request, request[:30]):
            until = time.monotonic() + PATIENCE
            with socket.create_connection(("127.0.0.1", self.members[0].http)) as slow:
                slow.sendall(head)
                port = port_of(slow)
                answer = b""
                slow.settimeout(0.1)
                while time.monotonic() < until:
                    try:
                        slow.sendall(b"x")
                        piece = slow.recv(1000)
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
                    answer += piece
                    if not piece:
                        break
            self.assertEqual(answer.count(b"408 Request Time"), 1)
            lines = self.members[0].lines(f"port={port})")
            self.assertEqual(len(lines), 1, lines)
            self.assertIn("closed: a request took too long to arrive", lines[0])
        self.assertCommits()


def hello() -> bytes:
    """Make the first flight of a caller."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = client_context(None).wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        secure.do_handshake()
    return outgoing.read()
