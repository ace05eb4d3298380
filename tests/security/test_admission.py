"""A node is asked for its identity over TLS before it becomes a member.

The leader probes the address as it would dial a member: the certificate there must be
for that address, or nothing is said, and nobody is added.
"""

from __future__ import annotations

import json
import socket
import ssl

from tests.security.test_callees import Impostor
from tests.support.forgery import Pair
from tests.support.hostile_members import Member, SecureCluster, wait
from tests.support.process_clusters import LEADERLESS

HOST = "127.0.0.1"


class Probes(SecureCluster):
    """`PUT /v1/operator/raft/peer` for an address that answers with TLS."""

    def add(self, address: str) -> tuple[int, str]:
        """Ask for *address* to be added; return the status and the answer."""
        answer = (0, b"")

        def is_answered() -> bool:
            nonlocal answer
            path = f"/v1/operator/raft/peer?address={address}"
            answer = self.members[0].request("PUT", path)
            return answer[0] not in LEADERLESS

        wait(is_answered, lambda: f"{answer!r}\n{self.all_logs()}")
        return answer[0], answer[1].decode()

    def peers(self) -> list[str]:
        """Return the members, as the first one knows them."""
        status, body = self.members[0].request("GET", "/v1/status/peers")
        self.assertEqual(status, 200)
        peers: list[str] = json.loads(body)
        return peers

    def assert_refused(self, pair: Pair, reason: str) -> None:
        """Assert that a server with *pair* hears nothing and is not added."""
        heard: list[bytes] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        stranger = Member(self.directory, "stranger")

        def answer(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                heard.append(secure.recv(1 << 16))

        impostor = Impostor(stranger.port, answer)
        try:
            status, said = self.add(stranger.address)
        finally:
            impostor.stop()

        self.assertEqual(status, 409, said)
        self.assertIn(f"nobody answers as a peer at {stranger.address}", said)
        self.assertIn(reason, said)
        self.assertEqual(b"".join(heard), b"")
        self.assertNotIn(stranger.address, self.peers())
        self.assertCommits()

    def test_wrong_identity(self) -> None:
        """A certificate of the right authority for another name is not enough."""
        pair = self.forge.issue("web.cluster.test")
        self.assert_refused(pair, f"is for web.cluster.test, but '{HOST}' was dialled")

    def test_identity_of_a_member(self) -> None:
        """Nor is that of a member, at another address than its own."""
        pair = self.members[1].pair
        assert pair is not None, "it has a certificate"
        self.assert_refused(pair, f"is for n2.cluster.test, but '{HOST}' was dialled")

    def test_right_identity(self) -> None:
        """The server that has the certificate for its address becomes a member."""
        joiner = Member(self.directory, "joiner")
        joiner.pair = self.forge.issue(HOST)
        self.configure(joiner, self.members)
        settings = self.directory / "joiner.yaml"
        lines = settings.read_text().splitlines()
        settings.write_text(
            "\n".join("join: true" if "peers:" in line else line for line in lines)
        )
        joiner.start()
        self.addCleanup(joiner.stop)
        wait(lambda: bool(joiner.lines("takes part")), lambda: joiner.log)

        self.assertEqual(self.add(joiner.address), (200, "true"))

        self.assertIn(joiner.address, self.peers())
        self.assertCommits()
        wait(
            lambda: joiner.request("GET", "/v1/kv/alive?raw&stale")[0] == 200,
            lambda: f"{joiner.log}\n{self.all_logs()}",
        )
