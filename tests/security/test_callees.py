"""A listener in a member's place that is not that member: nobody speaks to it."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Callable

import trustme

from tests.support.forgery import CLIENT, DAY, SERVER, Pair
from tests.support.hostile_members import SecureCluster, identity, wait

AUTHORITY = "an authority that is not the cluster's"
Answer = Callable[[socket.socket], None]


class Impostor:
    """Accepts connections at *port* and lets *answer* treat each, until `stop`."""

    def __init__(self, port: int, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._run)
        self._stopped = False
        self.heard = b""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._stopped = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(3.0)
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue


class Callees(SecureCluster):
    def refused(
        self,
        pair: Pair,
        reason: str,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        """Assert that no member sends anything to a server with *pair*."""
        heard = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = version

        def answer(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                heard.append(secure.recv(1 << 16))

        self.closed(answer, reason)
        self.assertEqual(b"".join(heard), b"")

    def closed(self, answer: Answer, reason: str) -> None:
        """Assert that who leads logs *reason*, and that the cluster goes on.

        That it does so once for many attempts is shown in `tests.transport.test_tls`:
        on a busy machine there may be attempts between that end in another way.
        """
        attempts: list[None] = []

        def counted(connection: socket.socket) -> None:
            attempts.append(None)
            answer(connection)

        def is_logged() -> bool:
            # The newest line, and not one since the impostor is here: the reason may be
            # that of the last attempt in the test before, and is logged only once then.
            # Before the second attempt begins, the first has ended.
            told = [
                m.lines(f"connection to {self.absent.address} closed: ")
                for m in members
            ]
            return len(attempts) > 1 and any(
                reason in lines[-1] for lines in told if lines
            )

        members = self.members
        impostor = Impostor(self.absent.port, counted)
        try:
            wait(is_logged, self.all_logs)
            self.assertCommits()
        finally:
            impostor.stop()

    def name(self) -> str:
        """Return the name that a true member would have there."""
        return identity(self.absent)

    def test_other_authority(self) -> None:
        self.refused(self.forge.issue(self.name(), ca=trustme.CA()), AUTHORITY)

    def test_self_signed(self) -> None:
        pair = self.forge.issue(self.name(), self_signed=True)
        self.refused(pair, "signed by itself")

    def test_expired(self) -> None:
        pair = self.forge.issue(self.name(), begins=-2 * DAY, ends=-DAY)
        self.refused(pair, "has expired")

    def test_not_yet_valid(self) -> None:
        pair = self.forge.issue(self.name(), begins=DAY, ends=2 * DAY)
        self.refused(pair, "not valid yet")

    def test_old_version(self) -> None:
        """A server that speaks nothing newer than TLS 1.1 is not spoken to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.absent.pair is not None
        context.load_cert_chain(self.absent.pair.certificate, self.absent.pair.key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")

        def answer(connection: socket.socket) -> None:
            context.wrap_socket(connection, server_side=True)

        self.closed(answer, "TLS handshake failed")

    def test_name_of_another_member(self) -> None:
        """A member that answers in the place of another is not spoken to."""
        pair = self.members[1].pair
        assert pair is not None
        self.refused(pair, "is for n2.cluster.test, but 'n4.cluster.test' was dialled")

    def test_name_of_nobody_with_tls_1_2(self) -> None:
        pair = self.forge.issue("web.cluster.test")
        reason = "is for web.cluster.test, but 'n4.cluster.test' was dialled"
        self.refused(pair, reason, ssl.TLSVersion.TLSv1_2)

    def test_common_name_only(self) -> None:
        pair = self.forge.issue(common_name=self.name())
        self.refused(pair, "no subject alternative name")

    def test_wildcard(self) -> None:
        self.refused(self.forge.issue("*.cluster.test"), "for a wildcard")

    def test_client_only(self) -> None:
        pair = self.forge.issue(self.name(), uses=CLIENT)
        self.refused(pair, "not for this use")

    def test_server_only(self) -> None:
        """The web server of the same authority is no peer."""
        pair = self.forge.issue(self.name(), uses=SERVER)
        self.refused(pair, "needs both clientAuth and serverAuth")

    def test_plain_server(self) -> None:
        """TLS is never given up for a peer that has none."""
        heard = []

        def answer(connection: socket.socket) -> None:
            heard.append(connection.recv(1 << 16)[:1])
            connection.sendall(b"\xa0\x83" * 100)

        self.closed(answer, "TLS handshake failed")
        self.assertEqual(set(heard) - {b""}, {b"\x16"})

    def test_closes_within_the_handshake(self) -> None:
        def answer(connection: socket.socket) -> None:
            connection.recv(10)

        self.closed(answer, "closed the connection within the TLS handshake")
