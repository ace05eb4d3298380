"""HTTPS, over one real connection each."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    trustRootFromCertificates,
)
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from tests.support.client_cluster import Node, answer
from tests.support.forgery import Forge
from txraft.cli.certificates import init_authority, issue_certificate
from txraft.client import Client, ClientLimits, ClientTLS, Unavailable
from txraft.errors import ConfigError
from txraft.transport.contexts import Contexts, TLSFiles, refusal_between


class HTTPS(TestCase):
    """A client trusts the authority that it was given, and nobody else."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.ca, _ = init_authority(self.directory)
        certificate, key = issue_certificate(self.directory, ["localhost"])
        options = CertificateOptions(
            certificate=x509.load_pem_x509_certificate(certificate.read_bytes()),
            privateKey=load_pem_private_key(key.read_bytes(), None),
            trustRoot=trustRootFromCertificates(
                [Certificate.loadPEM(self.ca.read_bytes())]
            ),
        )
        self.node = Node()
        self.node.default = answer(200, b"true")
        self.port = reactor.listenSSL(
            0, Site(self.node), options, interface="127.0.0.1"
        )
        self.addCleanup(self.port.stopListening)

    def client(self, tls: ClientTLS) -> Client:
        """Make a client that does not try for long."""
        from twisted.internet import reactor

        client = Client(
            [f"https://localhost:{self.port.getHost().port}"],
            reactor,
            tls=tls,
            limits=ClientLimits(timeout=1.0, retry_interval=1.0),
        )
        self.addCleanup(client.close)
        return client

    async def test_certificate(self) -> None:
        """Both sides show who they are, and the request is served."""
        shown, key = issue_certificate(self.directory, ["me"], client_only=True)
        client = self.client(ClientTLS(str(self.ca), str(shown), str(key)))

        self.assertIs(await client.put("k", b"v", acquire="s"), True)

    async def test_unknown_authority(self) -> None:
        """Nothing is sent to a node whose certificate nobody vouches for."""
        client = self.client(ClientTLS())

        await self.assertFailure(client.get("k"), Unavailable)
        self.assertEqual(self.node.asked, [])


class Files(SynchronousTestCase):
    """Files that cannot be used are named before anything is sent."""

    def test_missing(self) -> None:
        """A file that is not there."""
        self.assertRaises(ConfigError, ClientTLS, "/not/there.pem")

    def test_half(self) -> None:
        """A certificate without its key."""
        self.assertRaises(ConfigError, ClientTLS, None, "/some.pem")

    def test_chain(self) -> None:
        """A node that trusts the root alone is shown the certificates in between."""
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        forge = Forge(directory)
        between = forge.ca.create_child_ca()
        pair = forge.issue("n1.test", ca=between)
        with pair.certificate.open("ab") as file:
            file.write(between.cert_pem.bytes())
        files = TLSFiles(
            certificate=str(pair.certificate),
            private_key=str(pair.key),
            ca=str(forge.ca_file),
        )
        client = ClientTLS(files.ca, files.certificate, files.private_key)

        why = refusal_between(Contexts(files).server, client.context())

        self.assertIs(why, None)
