"""Certificates for a lab: what they are good for, and what is never replaced."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from txraft.certificates import init_authority, issue_certificate
from txraft.errors import ConfigError
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import Identity, NoIdentity, PeerNames
from txraft.transport.tls import PeerTLS


class Lab(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(mkdtemp()) / "tls"
        self.addCleanup(rmtree, self.directory.parent)

    def test_node_certificate_is_accepted(self) -> None:
        """What is issued for a node is what a node needs, as it stands."""
        ca, _ = init_authority(self.directory)
        certificate, key = issue_certificate(self.directory, ["n1.test", "127.0.0.1"])
        files = TLSFiles(certificate=str(certificate), private_key=str(key), ca=str(ca))

        tls = PeerTLS(files, PeerNames(), "n1.test")

        self.assertEqual(tls.warnings, [])
        identity = Identity(x509.load_pem_x509_certificate(certificate.read_bytes()))
        self.assertTrue(identity.is_named("127.0.0.1"))
        self.assertFalse(identity.is_named("n2.test"))

    def test_keys_are_their_owners(self) -> None:
        """Nobody else reads a key, whatever the umask says."""
        self.addCleanup(os.umask, os.umask(0))
        _, ca_key = init_authority(self.directory)
        _, key = issue_certificate(self.directory, ["n1.test"])
        for path, mode in ((self.directory, 0o700), (ca_key, 0o600), (key, 0o600)):
            self.assertEqual(path.stat().st_mode & 0o777, mode)

    def test_client_certificate_is_no_peers(self) -> None:
        init_authority(self.directory)
        path, _ = issue_certificate(self.directory, ["ops.test"], client_only=True)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        with self.assertRaises(NoIdentity):
            Identity(certificate)

    def test_nothing_is_replaced(self) -> None:
        """An authority, once lost, makes every certificate of the cluster worthless."""
        ca, key = init_authority(self.directory)
        before = ca.read_bytes(), key.read_bytes()
        self.assertRaises(ConfigError, init_authority, self.directory)
        issue_certificate(self.directory, ["n1.test"])
        self.assertRaises(ConfigError, issue_certificate, self.directory, ["n1.test"])
        self.assertEqual((ca.read_bytes(), key.read_bytes()), before)

    def test_no_authority(self) -> None:
        error = self.assertRaises(
            ConfigError, issue_certificate, self.directory, ["n1.test"]
        )
        self.assertIn("make one first", str(error))

    def test_another_name(self) -> None:
        """A node with the certificate of another one does not start."""
        ca, _ = init_authority(self.directory)
        certificate, key = issue_certificate(self.directory, ["n1.test"])
        files = TLSFiles(certificate=str(certificate), private_key=str(key), ca=str(ca))
        error = self.assertRaises(ConfigError, PeerTLS, files, PeerNames(), "n2.test")
        self.assertIn("this node's identity is n2.test", str(error))
