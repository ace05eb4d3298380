"""Certificates for a lab: valid for their uses, and never replaced by accident."""

from __future__ import annotations

import io
import os
import ssl
from datetime import UTC, datetime
from errno import ENOSPC
from pathlib import Path
from shutil import rmtree, which
from subprocess import run
from tempfile import mkdtemp
from typing import IO
from unittest import skipUnless

from click.testing import CliRunner, Result
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from txraft.cli import certificates
from txraft.cli.app import main
from txraft.cli.certificates import (
    init_authority,
    issue_certificate,
    renew_certificate,
)
from txraft.errors import ConfigError
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import Identity, NoIdentity, PeerNames
from txraft.transport.tls import PeerTLS


class LabTestCase(SynchronousTestCase):
    """Has a directory for an authority."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp()) / "tls"
        self.addCleanup(rmtree, self.directory.parent)

    def files(self) -> list[str]:
        """Return the names in the directory."""
        return sorted(path.name for path in self.directory.iterdir())

    def tls(self, command: str, *arguments: str) -> Result:
        """Run one command in the directory."""
        return CliRunner().invoke(
            main, ["tls", command, "--dir", str(self.directory), *arguments]
        )

    def assert_told(self, done: Result, words: str) -> None:
        """Check that the command was refused with a sentence, not a traceback."""
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertIsInstance(done.exception, SystemExit)
        self.assertIn(words, done.stderr)


class Lab(LabTestCase):
    """What an authority issues, and what it leaves alone."""

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

    def test_nothing_is_written_beside_a_certificate(self) -> None:
        """A new key would not fit what is there, and yet look as if it did."""
        _, ca_key = init_authority(self.directory)
        _, key = issue_certificate(self.directory, ["n1.test"])
        key.unlink()
        self.assertRaises(ConfigError, issue_certificate, self.directory, ["n1.test"])
        ca_key.unlink()
        self.assertRaises(ConfigError, init_authority, self.directory)
        self.assertEqual(self.files(), ["ca.pem", "n1.test.pem"])

    def test_no_key_without_certificate(self) -> None:
        """A key that is left alone would be in the way of the next attempt."""
        init_authority(self.directory)
        before = self.files()
        real = certificates.create_file

        def create(path: Path, mode: int) -> IO[bytes]:
            if path.suffix == ".pem":
                raise OSError(ENOSPC, "No space left on device", str(path))
            return real(path, mode)

        self.patch(certificates, "create_file", create)
        self.assertRaises(OSError, issue_certificate, self.directory, ["n1.test"])
        self.assertEqual(self.files(), before)

        self.directory = self.directory.with_name("another")
        self.assertRaises(OSError, init_authority, self.directory)
        self.assertEqual(self.files(), [])

    def test_no_part_of_a_file(self) -> None:
        """What cannot be written to its end is taken away."""
        init_authority(self.directory)
        before = self.files()

        class Full(io.FileIO):
            def write(self, data: object) -> int:
                super().write(b"-----BEGIN")
                raise OSError(ENOSPC, "No space left on device")

        self.patch(certificates, "create_file", lambda path, mode: Full(path, "x"))
        self.assertRaises(OSError, issue_certificate, self.directory, ["n1.test"])
        self.assertEqual(self.files(), before)

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

    def test_issue_certificate_within_the_authority(self) -> None:
        """No certificate lasts longer than what it is verified with."""
        ca, _ = init_authority(self.directory, days=10)
        path, _ = issue_certificate(self.directory, ["n1.test"], days=300)

        self.assertEqual(
            certificate_in(path).not_valid_after_utc,
            certificate_in(ca).not_valid_after_utc,
        )


class Strict(LabTestCase):
    """Strict verifiers accept what is issued, as the newest ones are by default."""

    def test_python(self) -> None:
        """Both sides of a handshake verify as Python 3.13 does unless told not to."""
        ca, _ = init_authority(self.directory)
        node = issue_certificate(self.directory, ["n1.test", "127.0.0.1"])
        client = issue_certificate(self.directory, ["ops.test"], client_only=True)

        for name, shown in (("n1.test", node), ("127.0.0.1", client)):
            server = strict_context(ssl.Purpose.CLIENT_AUTH, ca, node)
            shake_hands(
                server, strict_context(ssl.Purpose.SERVER_AUTH, ca, shown), name
            )

    @skipUnless(which("openssl"), "needs the command openssl")
    def test_openssl(self) -> None:
        """OpenSSL's own verifier finds nothing to refuse, also in the authority."""
        ca, _ = init_authority(self.directory)
        node, _ = issue_certificate(self.directory, ["n1.test"])
        renew_certificate(self.directory, ["n1.test"])
        client, _ = issue_certificate(self.directory, ["ops.test"], client_only=True)

        for purpose, path in (
            ("sslserver", node),
            ("sslclient", node),
            ("sslclient", client),
            ("any", ca),
        ):
            command = f"openssl verify -x509_strict -purpose {purpose} -CAfile"
            done = run(
                [*command.split(), str(ca), str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_extensions(self) -> None:
        """Each has what RFC 5280 demands, and no more.  Source: RFC 5280, §4.2.1"""
        ca_path, _ = init_authority(self.directory)
        path, _ = issue_certificate(self.directory, ["n1.test"])
        ca, node = certificate_in(ca_path), certificate_in(path)

        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        for certificate in (ca, node):
            issuer = certificate.extensions.get_extension_for_class(
                x509.AuthorityKeyIdentifier
            )
            self.assertEqual(issuer.value.key_identifier, own.digest)
            self.assertFalse(issuer.critical)
            for kind in (x509.BasicConstraints, x509.KeyUsage):
                self.assertTrue(
                    certificate.extensions.get_extension_for_class(kind).critical
                )
        limits = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        self.assertEqual((limits.ca, limits.path_length), (True, 0))


class Refusals(LabTestCase):
    """What cannot be done is told in a sentence."""

    def test_days(self) -> None:
        """No calendar has a date for more, and nobody keeps a key for longer."""
        init_authority(self.directory)
        most = str(certificates.MAX_DAYS)
        for command, names in (
            ("init", ()),
            ("issue", ("n2",)),
            ("issue", ("--renew", "n2")),
        ):
            done = self.tls(command, "--days", "3000000", *names)
            self.assertEqual(done.exit_code, 2, done.output)
            self.assertIn(f"1<=x<={most}", done.stderr)
        self.assertEqual(self.tls("issue", "n1", "--days", most).exit_code, 0)

    def test_names(self) -> None:
        """Certificates have host names in ASCII."""
        init_authority(self.directory)
        before = self.files()
        for more in ((), ("--renew",)):
            for names in (("\xfc.example",), ("n1", "\xfc.example")):
                done = self.tls("issue", *more, *names)
                self.assert_told(done, "'\xfc.example' is not in ASCII")
        self.assertEqual(self.files(), before)

    def test_unwritable(self) -> None:
        """The sentence names the file; no right to write is needed to see it."""
        (self.directory.parent / "file").touch()
        self.directory = self.directory.parent / "file" / "tls"
        self.assert_told(self.tls("init"), "Not a directory")

        self.directory = self.directory.parent.parent / "tls"
        init_authority(self.directory)
        name = ".".join(["n" * 60] * 5)
        self.assert_told(self.tls("issue", name), f"{name}.key: File name too long")

        issue_certificate(self.directory, ["n1"])
        (self.directory / "n1.pem.new").mkdir()
        self.assert_told(self.tls("issue", "--renew", "n1"), "n1.pem.new: ")


class Renewal(LabTestCase):
    """The same certificate for longer, in the place of the old one."""

    def setUp(self) -> None:
        super().setUp()
        init_authority(self.directory)
        names = ["n1.test", "127.0.0.1", "::1"]
        self.path, self.key = issue_certificate(self.directory, names, days=5)
        self.old = certificate_in(self.path)

    def test_renew_certificate_keeps_all_but_dates(self) -> None:
        """Names, uses and key are the same, so a node takes it with its old key."""
        key = self.key.read_bytes()

        path, end = renew_certificate(self.directory, ["n1.test"], days=90)

        new = certificate_in(self.path)
        self.assertEqual((path, end), (self.path, new.not_valid_after_utc))
        self.assertEqual(self.key.read_bytes(), key)
        self.assertEqual(new.public_key(), self.old.public_key())
        self.assertEqual(new.subject, self.old.subject)
        for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage):
            self.assertEqual(
                new.extensions.get_extension_for_class(kind),
                self.old.extensions.get_extension_for_class(kind),
            )
        self.assertNotEqual(new.serial_number, self.old.serial_number)
        self.assertEqual((end - datetime.now(UTC)).days, 89)

    def test_renew_certificate_keeps_modes(self) -> None:
        """Who could read it before can do so now, whatever the umask says."""
        self.path.chmod(0o640)
        self.addCleanup(os.umask, os.umask(0o077))

        renew_certificate(self.directory, ["n1.test"])

        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.key.stat().st_mode & 0o777, 0o600)
        self.assertEqual(
            self.files(), ["ca.key", "ca.pem", "n1.test.key", "n1.test.pem"]
        )

    def test_renew_certificate_of_a_running_node(self) -> None:
        """What a node has in force is replaced when it rereads its files."""
        files = TLSFiles(
            certificate=str(self.path),
            private_key=str(self.key),
            ca=str(self.directory / "ca.pem"),
        )
        tls = PeerTLS(files, PeerNames(), "n1.test")
        renew_certificate(self.directory, ["n1.test"])

        tls.reload()

        shown = tls.connection(client=False).get_certificate(as_cryptography=True)
        self.assertEqual(shown, certificate_in(self.path))
        self.assertNotEqual(shown, self.old)

    def test_renew_certificate_refused(self) -> None:
        """Nothing is replaced by what would not do in its place."""
        other = self.directory.parent / "other"
        init_authority(other)
        stranger, stranger_key = issue_certificate(other, ["n2.test"])
        for path in (stranger, stranger_key):
            path.rename(self.directory / path.name)
        _, wrong_key = issue_certificate(self.directory, ["n3.test"])
        self.key.rename(self.directory / "away")
        wrong_key.rename(self.directory / "n1.test.key")
        before = self.path.read_bytes()

        for names, words in (
            (["n1.test"], "it is not the key of n1.test.pem"),
            (["n1.test", "n9.test"], "it is for n1.test, 127.0.0.1, ::1"),
            (["n2.test"], "not from the authority"),
            (["n4.test"], "issue one without --renew"),
            (["ca"], "it is no certificate that was issued here"),
        ):
            error = self.assertRaises(
                ConfigError, renew_certificate, self.directory, names
            )
            self.assertIn(words, str(error))
        self.assertEqual(self.path.read_bytes(), before)

    def test_names_written_otherwise(self) -> None:
        """Addresses are compared, not their texts; host names in any case."""
        names = ["n1.test", "N1.TEST", "0:0:0:0:0:0:0:1", "127.0.0.1"]
        renew_certificate(self.directory, names)
        self.assertNotEqual(certificate_in(self.path), self.old)
        for names in (["n1.test", "::1"], ["n1.test", "127.0.0.1", "::2"]):
            self.assertRaises(ConfigError, renew_certificate, self.directory, names)

    def test_command(self) -> None:
        """The command says until when, and how a running node takes it."""
        done = CliRunner().invoke(
            main,
            ["tls", "issue", "--renew", "--dir", str(self.directory), "n1.test"],
        )

        self.assertEqual(done.exit_code, 0, done.output)
        new = certificate_in(self.path)
        self.assertIn(f"{new.not_valid_after_utc:%Y-%m-%d}", done.output)
        self.assertIn("kill -HUP", done.output)


def certificate_in(path: Path) -> x509.Certificate:
    """Read the certificate in the file *path*."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def strict_context(
    purpose: ssl.Purpose, ca: Path, shown: tuple[Path, Path]
) -> ssl.SSLContext:
    """Make a context with the defaults of Python 3.13, on any Python."""
    context = ssl.create_default_context(purpose, cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*map(str, shown))
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Connect *client* to *server*, whom it calls *name*. Raises: ssl.SSLError"""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # flights of TLS 1.3 and 1.2
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    assert not sides, "both have come to the end"
