"""Certificates that expire soon, and those of which that does not matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import trustme
from cryptography import x509
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import DAY, Forge
from txraft.cli.certificates import init_authority, issue_certificate, renew_certificate
from txraft.daemon.keyring import Keyring
from txraft.settings.settings import load_settings
from txraft.transport.contexts import Contexts, TLSFiles
from txraft.transport.validity import LOOK_SECONDS, Validity, ValidityWatch

NOW = datetime(2031, 5, 4, 12, tzinfo=UTC)


class Watch(SynchronousTestCase):
    """The log tells of it at the start and every day."""

    def setUp(self) -> None:
        self.now = NOW
        self.clock = Clock()
        self.validities: list[Validity] = []
        self.watch = ValidityWatch(
            lambda: self.validities, self.clock, lambda: self.now
        )
        self.addCleanup(self.watch.stop)

    def day(self) -> list[str]:
        """Let a day pass; return what is logged meanwhile."""
        self.now += DAY
        with capturedLogs() as events:
            self.clock.advance(LOOK_SECONDS)
        return [formatEvent(event) for event in events]

    def test_start(self) -> None:
        """It is told at once, once a file, what expires and what to do."""
        self.validities = [
            Validity("tls.certificate", "/n1.pem", NOW + 30 * DAY),
            Validity("http.tls.certificate", "/n1.pem", NOW + 30 * DAY),
            Validity("tls.ca", "/ca.pem", NOW + 31 * DAY),
        ]

        with capturedLogs() as events:
            self.watch.start()

        [told] = [formatEvent(event) for event in events]
        self.assertIn("/n1.pem: it expires in 30 days, on 2031-06-03 12:00", told)
        self.assertIn("--renew", told)

    def test_daily(self) -> None:
        """It is told on the day on which it begins to matter, and until it is over."""
        self.validities = [Validity("http.tls.ca", "/ca.pem", NOW + 32 * DAY)]
        self.watch.start()

        self.assertEqual(self.day(), [])
        for days in (30, 29):
            [told] = self.day()
            self.assertIn(f"/ca.pem: it expires in {days} days", told)
        self.now += 29 * DAY
        self.assertIn("it has expired, on 2031-06-05", self.day()[0])

        self.validities = []  # what was renewed and reread is in force
        self.assertEqual(self.day(), [])

    def test_stop(self) -> None:
        """Nothing is left to be done, also when it is stopped twice."""
        self.watch.start()
        self.watch.stop()
        self.watch.stop()

        self.assertEqual(self.clock.getDelayedCalls(), [])


class Ends(SynchronousTestCase):
    """When the certificates in files expire, as far as they are in use."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)

    def test_authority_in_use(self) -> None:
        """Of several authorities that counts which has issued the certificate."""
        files = {}
        for name, days in (("old", 20), ("new", 400)):
            ca, _ = init_authority(self.directory / name, days)
            pair = issue_certificate(self.directory / name, ["n1.test"], days=5)
            files[name] = (ca, *pair)
        both = self.directory / "both.pem"
        both.write_bytes(b"".join(ca.read_bytes() for ca, _, _ in files.values()))

        for ca, certificate, key in files.values():
            contexts = Contexts(
                TLSFiles(
                    certificate=str(certificate), private_key=str(key), ca=str(both)
                )
            )
            own, authority = (
                x509.load_pem_x509_certificate(path.read_bytes())
                for path in (certificate, ca)
            )
            self.assertEqual(
                contexts.ends,
                {
                    "certificate": own.not_valid_after_utc,
                    "ca": authority.not_valid_after_utc,
                },
            )

    def test_intermediate(self) -> None:
        """Issuers in the file count by themselves; strangers do not count."""
        forge = Forge(self.directory)
        between = forge.ca.create_child_ca()
        pair = forge.issue("n1.test", ca=between, ends=2000 * 365 * DAY)
        stranger = forge.issue("n2.test", ends=timedelta(hours=1))
        chain = [pair.certificate.read_bytes(), between.cert_pem.bytes()]
        pair.certificate.write_bytes(
            b"".join([*chain, stranger.certificate.read_bytes()])
        )

        contexts = Contexts(
            TLSFiles(
                certificate=str(pair.certificate), private_key=str(pair.key), ca=None
            )
        )

        own, end = (
            x509.load_pem_x509_certificate(pem).not_valid_after_utc for pem in chain
        )
        self.assertEqual(contexts.ends, {"certificate": own, "certificate.issuer": end})

    def test_issuer_in_words(self) -> None:
        """An issuer that has expired is not taken for the node's certificate."""
        told = Validity("tls.certificate.issuer", "/n1.pem", NOW - DAY).warning(NOW)

        assert told is not None
        self.assertIn("/n1.pem: of an issuer in it: it has expired, on 2031-", told)
        self.assertIn("or remove it", told)

    def test_keyring_with_issuers(self) -> None:
        """The issuers are told under the file of the certificate."""
        forge = Forge(self.directory)
        pair = forge.issue("n1.test")
        with pair.certificate.open("ab") as file:
            file.write(forge.cross_signed(trustme.CA(), -DAY))
        node = self.directory / "node.yaml"
        node.write_text(
            f"advertise: n1.test:8300\ntls: {{certificate: {pair.certificate}, "
            f"private_key: {pair.key}, ca: {forge.ca_file}}}\n"
        )

        validities = Keyring(load_settings(str(node))).validities

        self.assertEqual(
            [(each.setting, each.path) for each in validities],
            [
                ("tls.certificate", str(pair.certificate)),
                ("tls.certificate.issuer", str(pair.certificate)),
                ("tls.ca", str(forge.ca_file)),
            ],
        )

    def test_keyring(self) -> None:
        """Each is told under its setting, and anew once it was reread."""
        ca, _ = init_authority(self.directory / "tls")
        certificate, key = issue_certificate(self.directory / "tls", ["n1.test"])
        lines = f"certificate: {certificate}, private_key: {key}, ca: {ca}"
        node = self.directory / "node.yaml"
        node.write_text(
            f"advertise: n1.test:8300\ntls: {{{lines}}}\n"
            f"http: {{tls: {{{lines}}}, advertise: 'https://n1.test:8500'}}\n"
        )
        keyring = Keyring(load_settings(str(node)))
        before = keyring.validities

        renew_certificate(self.directory / "tls", ["n1.test"], days=7)
        self.assertEqual(keyring.validities, before)
        self.assertEqual(keyring.reload(), [])

        self.assertEqual(
            [(v.setting, v.path) for v in keyring.validities],
            [
                ("tls.certificate", str(certificate)),
                ("tls.ca", str(ca)),
                ("http.tls.certificate", str(certificate)),
                ("http.tls.ca", str(ca)),
            ],
        )
        ends = [validity.end for validity in keyring.validities]
        self.assertEqual(
            [before[0].end - ends[0], before[2].end - ends[2]],
            2 * [before[0].end - ends[0]],
        )
        self.assertEqual(round((before[0].end - ends[0]) / DAY), 358)
