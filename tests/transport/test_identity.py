"""Names that certificates prove, and text that is no name."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import Forge
from txraft.transport.identity import proves


class Proves(SynchronousTestCase):
    """A certificate is for its names and for no others, whatever is asked."""

    def setUp(self) -> None:
        directory = Path(mkdtemp())
        self.addCleanup(rmtree, directory)
        pair = Forge(directory).issue("n1.test", "192.0.2.1", "2001:db8::1")
        self.certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())

    def test_names(self) -> None:
        for name in ("n1.test", "N1.test", "192.0.2.1", "2001:db8::1", "2001:DB8:0::1"):
            self.assertTrue(proves(self.certificate, name), name)

    def test_others(self) -> None:
        for name in ("n2.test", "test", "192.0.2.2", "2001:db8::2"):
            self.assertFalse(proves(self.certificate, name), name)

    def test_no_name(self) -> None:
        """Text that no host can have for a name is not proved, and raises nothing."""
        for name in ("", " ", "x@y", "node one", "*.test", "fe80::1%eth0", "ü.test"):
            self.assertFalse(proves(self.certificate, name), name)
