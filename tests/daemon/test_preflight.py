"""`--check-config`: each mistake is told with its line, and nothing is touched."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import CLIENT, DAY, SERVER, Forge, Pair
from txraft.daemon.local_host import LocalHost
from txraft.daemon.preflight import check_settings
from txraft.errors import ConfigError
from txraft.storage.directory import DataDirectory
from txraft.storage.stores import open_stores

SETTINGS = """\
data_dir: data
listen: tcp:8300:interface=192.0.2.1
advertise: n1.test:8300
peers:
- n1.test:8300
- n2.test:8300
- n3.test:8300
tls:
  certificate: {certificate}
  private_key: {key}
  ca: {ca}
http:
  listen: tcp:8500:interface=192.0.2.1
  advertise: https://n1.test:8500
  tokens: tokens
  tls:
    certificate: {http_certificate}
    private_key: {http_key}
    ca: {ca}
    roles: {{n1.test: node, n2.test: node, n3.test: node, ops.test: operator}}
raft:
  election_timeout: 1s
limits:
  max_entries: 4096
"""
"""Of a node about which there is nothing to say."""

TOKENS = "read 2f4b8a01c7e94e0d\noperator e6d0f1a2b3c4d5e6f708\n"
EXTRA = "ca-of-others.pem"


class TestMachine:
    """A machine at 192.0.2.1 that knows the names of three nodes."""

    __test__ = False
    names = ("n1.test", "n2.test", "n3.test")
    least_port = 1024
    uid = os.geteuid()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def unresolved(self, host: str) -> str | None:
        """Know the three names."""
        self.asked.append(host)
        return None if host in self.names else "Name or service not known"

    def has(self, host: str) -> bool:
        """Have two addresses."""
        return host in ("127.0.0.1", "192.0.2.1")

    def may_bind(self, port: int) -> bool:
        """Know no privileges."""
        return port >= self.least_port

    def user(self) -> int:
        """Be who runs the test."""
        return self.uid


class PreflightTestCase(SynchronousTestCase):
    """Checks settings of a node with certificates, tokens and data."""

    def setUp(self) -> None:
        self.directory = Path(mkdtemp())
        self.addCleanup(rmtree, self.directory)
        self.machine = TestMachine()
        self.forge = Forge(self.directory)
        self.peer = self.forge.issue("n1.test")
        self.http = self.forge.issue("n1.test")
        self.ca = self.forge.ca_file
        self.text = SETTINGS
        self.write("tokens", TOKENS, 0o600)
        self.long = self.forge.issue("n1.test", ends=40 * DAY)
        self.peer = self.http = self.long

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Make a file."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def check(self, **flags: str) -> list[str]:
        """Check the node; return what is odd. Raises: ConfigError"""
        text = self.text.format(
            certificate=self.peer.certificate,
            key=self.peer.key,
            ca=self.ca,
            http_certificate=self.http.certificate,
            http_key=self.http.key,
        )
        path = self.write("node.yaml", text)
        named = {name.replace("_", "-"): value for name, value in flags.items()}
        return self.shown(check_settings(str(path), named, machine=self.machine)[1])

    def shown(self, problems: list[str]) -> list[str]:
        """Return *problems* without the directory of the test."""
        return [problem.replace(f"{self.directory}/", "") for problem in problems]

    def line_of(self, key: str) -> int:
        """Return the line of the last setting that is written as *key*."""
        lines = self.text.splitlines()
        return max(i for i, each in enumerate(lines, 1) if each.strip().startswith(key))

    def assertTold(self, told: list[str], key: str, words: tuple[str, ...]) -> None:
        """Assert that one thing is told, at the line of *key*, with all of *words*."""
        self.assertLine(told, self.line_of(key), words)

    def assertLine(self, told: list[str], line: int, words: tuple[str, ...]) -> None:
        """Assert that one thing is told, at *line*, with all of *words*."""
        self.assertEqual(len(told), 1, told)
        place = f"node.yaml:{line}: "
        self.assertTrue(told[0].startswith(place), (place, told))
        for word in words:
            self.assertIn(word, told[0])

    def assertRefused(self, key: str, *words: str) -> None:
        """Assert that one fault is found, at the line of *key*, with all of *words*."""
        error = self.assertRaises(ConfigError, self.check)
        assert error is not None
        self.assertTold(self.shown(error.problems), key, words)

    def assertHint(self, key: str, *words: str) -> None:
        """Assert that one thing is worth a look, at the line of *key*."""
        self.assertTold(self.check(), key, words)


class Sound(PreflightTestCase):
    """A node about which there is nothing to say."""

    def test_nothing_to_say(self) -> None:
        """What is right passes in silence, and nothing has come to be."""
        before = sorted(os.listdir(self.directory))

        self.assertEqual(self.check(), [])

        after = sorted(os.listdir(self.directory))
        self.assertEqual(after, sorted([*before, "node.yaml"]))

    def test_data_of_this_node(self) -> None:
        """A node is checked beside its own data, also while it runs."""
        directory = DataDirectory(self.directory / "data", "n1.test:8300")
        self.addCleanup(directory.close)
        stores = open_stores("file", directory, "n1.test:8300")
        self.addCleanup(stores.close)
        stores.stable.set(b"a", b"1")
        held = sorted(os.listdir(directory.path))

        self.assertEqual(self.check(), [])
        self.assertEqual(sorted(os.listdir(directory.path)), held)

    def test_no_tls(self) -> None:
        """A node on loopback needs none of all that."""
        self.text = "data_dir: data\n"

        self.assertEqual(self.check(), [])

    def test_names_are_asked_once(self) -> None:
        """A name server that is down costs its patience once a name."""
        self.machine.names = ()

        self.assertEqual(len(self.check()), 3)
        self.assertEqual(sorted(self.machine.asked), ["n1.test", "n2.test", "n3.test"])


class Mistakes(PreflightTestCase):
    """What is often done wrong is refused, each with its line and a way out."""

    def replace(self, old: str, new: str) -> None:
        """Write *new* in the settings, where *old* is."""
        self.assertIn(old, self.text)
        self.text = self.text.replace(old, new, 1)

    def test_settings_themselves(self) -> None:
        """What is wrong in the text alone is told as at a start, before all else."""
        for old, new, line, words in (
            ("  ca: {ca}\n", "   ca: {ca}\n", 11, ("not valid YAML", "indented")),
            ("  ca: {ca}\n", "\tca: {ca}\n", 11, ("not valid YAML", "by spaces")),
            ("  tokens: t", "tokens: t", 16, ("not valid YAML", "all of it alike")),
            ("peers:", "perrs:", 4, ("did you mean peers?",)),
            ("data\n", "data\nca: x.pem\n", 2, ("did you mean tls.ca?",)),
            ("1s", "1 second", 22, ("a duration: 1s, 500ms",)),
            ("4096", "4 KiB", 24, ("a whole decimal number",)),
            ("4096", "8", 24, ("is less than max_append_entries (1024)",)),
            ("1s", "100ms", 22, ("election_timeout (0.1 s) is less",)),
            ("tcp:8500", "tcp:8300", 13, ("'tcp:8300:inter", "a port each")),
            ("n1.test:8500", "n1.test:8300", 14, ("a port each",)),
            ("- n1.test:8300\n", "", 4, ("does not include this node",)),
            ("https:", "http:", 14, ("https://127.0.0.1:8500",)),
        ):
            self.text = SETTINGS
            self.replace(old, new)
            error = self.assertRaises(ConfigError, self.check)
            assert error is not None
            self.assertLine(self.shown(error.problems), line, words)

    def test_missing_file(self) -> None:
        """A file that is not there is named, with its setting."""
        for old, key in (
            ("  certificate: {certificate}", "certificate: gone"),
            ("  private_key: {key}", "private_key: gone"),
            ("  ca: {ca}", "ca: gone"),
            ("    certificate: {http_certificate}", "certificate: gone"),
            ("tokens: tokens", "tokens: gone"),
        ):
            self.text = SETTINGS
            indent = old[: len(old) - len(old.lstrip())]
            self.replace(old, f"{indent}{key}.pem")
            self.assertRefused(key, "gone.pem: it cannot be read: No such file")

    def test_file_of_another_kind(self) -> None:
        """Key and certificate are not exchanged for one another."""
        self.replace("certificate: {certificate}", "certificate: {key}")
        self.assertRefused("certificate: {key}", "not a certificate in PEM", "BEGIN C")
        self.text = SETTINGS
        self.replace("private_key: {key}", "private_key: {certificate}")
        self.assertRefused("private_key: {cert", "not PEM of the right kind", "BEGIN P")

    def test_key_of_another_certificate(self) -> None:
        self.peer = Pair(self.long.certificate, self.forge.issue("n1.test").key)

        self.assertRefused(
            "private_key: {key}",
            f"it is not the key of {self.long.certificate.name} (node.yaml:9)",
        )

    def test_key_with_passphrase(self) -> None:
        """Nobody is there to type it, neither now nor at the start."""
        key = load_pem_private_key(self.long.key.read_bytes(), None)
        locked = self.directory / "locked.key"
        locked.touch(0o600)
        locked.write_bytes(
            key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            )
        )
        self.peer = Pair(self.long.certificate, locked)

        self.assertRefused("private_key: {key}", "it has a passphrase", "openssl pkey")

    def test_certificate_for_another_name(self) -> None:
        """It must be for what others dial: peers one name, clients perhaps another."""
        self.peer = self.forge.issue("n2.test", ends=40 * DAY)
        self.assertRefused(
            "certificate: {certificate}",
            "it is for n2.test, but peers dial n1.test (as advertise says, ",
            "node.yaml:3)",
            "issue one for that",
        )
        self.peer, self.http = self.long, self.peer
        self.assertRefused(
            "certificate: {http_certificate}",
            "it is not for n1.test",
            "(http.advertise)",
        )

    def test_certificate_for_one_use(self) -> None:
        """A peer dials and listens; who serves HTTP is a server."""
        for uses in (SERVER, CLIENT):
            self.peer = self.forge.issue("n1.test", uses=uses, ends=40 * DAY)
            self.assertRefused(
                "certificate: {certificate}", "both clientAuth and serverAuth", "issue"
            )
        self.peer, self.http = self.long, self.peer
        self.assertRefused("certificate: {http_certificate}", "for clients alone")
        self.http = self.forge.issue("n1.test", uses=SERVER, ends=40 * DAY)
        self.assertRefused(
            "certificate: {http_certificate}", "when it forwards", "not for this use"
        )

    def test_expired(self) -> None:
        self.peer = self.forge.issue("n1.test", begins=-9 * DAY, ends=-DAY)

        self.assertRefused(
            "certificate: {certificate}", "it has expired, on 20", "issue --renew"
        )

    def test_issuer_has_expired(self) -> None:
        """An issuer that others need is a fault: their handshake fails."""
        old = self.forge.issue(
            is_ca=True, uses=None, begins=-9 * DAY, ends=-DAY, common_name="old"
        )
        pems = (old.certificate.read_bytes(), old.key.read_bytes())
        for of in ("peer", "http"):
            pair = self.forge.issue(
                "n1.test", ca=trustme.CA.from_pem(*pems), ends=40 * DAY
            )
            with pair.certificate.open("ab") as file:
                file.write(pems[0])
            self.peer = self.http = self.long
            setattr(self, of, pair)
            key = "certificate" if of == "peer" else "http_certificate"
            self.assertRefused(
                f"certificate: {{{key}}}", "refuse it", "its certificate has expired"
            )

    def test_not_valid_yet(self) -> None:
        self.http = self.forge.issue("n1.test", begins=DAY, ends=40 * DAY)

        self.assertRefused(
            "certificate: {http_certificate}", "it is not valid before 20", "the clock"
        )

    def test_other_authority(self) -> None:
        """An authority that has not signed is told, whoever has the wrong file."""
        other = self.directory / EXTRA
        trustme.CA().cert_pem.write_to_path(str(other))
        self.replace("  ca: {ca}\nhttp", f"  ca: {EXTRA}\nhttp")
        self.assertRefused(
            f"ca: {EXTRA}",
            f"no authority in it has issued {self.long.certificate.name} (node.yaml:9)",
            "which is from ",
        )

        both = other.read_bytes() + self.ca.read_bytes()
        other.write_bytes(both)
        self.assertEqual(self.check(), [])

    def test_certificate_in_the_place_of_an_authority(self) -> None:
        self.replace("  ca: {ca}\nhttp", "  ca: {certificate}\nhttp")

        error = self.assertRaises(ConfigError, self.check)

        assert error is not None
        self.assertIn("certificate of no authority", self.shown(error.problems)[0])

    def test_tokens(self) -> None:
        """The file of tokens is read, and no token is shown."""
        for text, mode, words in (
            ("read 2f4b8a01c7e94e0d\nwriter 9c1d77b3a5064c2f\n", 0o600, ("tokens:2:",)),
            (f"read short\n{TOKENS}", 0o600, ("tokens:1:", "16 to 512 characters")),
            (TOKENS, 0o644, ("only its owner can read: chmod 600",)),
            ("# none yet\n", 0o600, ("1 to 1024 tokens",)),
        ):
            self.write("tokens", text, mode)
            self.assertRefused("tokens: tokens", *words)

    def test_listen_elsewhere(self) -> None:
        """An address of another machine, or of none, is found before it is bound."""
        self.replace("interface=192.0.2.1", "interface=192.0.2.7")
        self.assertRefused("listen: tcp:8300", "no interface of this machine has 192")
        self.replace("interface=192.0.2.7", "interface=eth0")
        self.assertRefused("listen: tcp:8300", "eth0 does not resolve (Name or service")
        self.text = SETTINGS
        self.replace("tcp:8500:interface=192.0.2.1", "tcp:8500:interface=192.0.2.7")
        self.assertRefused("listen: tcp:8500", "http.listen is", "192.0.2.7")

    def test_data_of_another_node(self) -> None:
        """A data directory is never another node's, nor that of another store."""
        self.data("file", "n9.test:8300")
        self.assertRefused("data_dir", "belongs to node 'n9.test:8300'", "n1.test:8300")

        self.text = "store: lmdb\n" + SETTINGS
        self.assertRefused("data_dir", "holds a store of kind file, and lmdb is asked")

    def test_data_of_another_node_in_lmdb(self) -> None:
        self.data("lmdb", "n9.test:8300")
        self.assertRefused("data_dir", "holds a store of kind lmdb, and file is asked")

        self.text = "store: lmdb\n" + SETTINGS
        self.assertRefused("data_dir", "belongs to node 'n9.test:8300'")

    def data(self, kind: str, name: str) -> None:
        """Let the node *name* have run on the data directory."""
        directory = DataDirectory(self.directory / "data", name)
        stores = open_stores(kind, directory, name)
        stores.stable.set(b"a", b"1")
        stores.close()
        directory.close()

    def test_link_in_data(self) -> None:
        data = self.directory / "data"
        data.mkdir()
        (data / "log").symlink_to("elsewhere")

        self.assertRefused("data_dir", "log is a symbolic link")

    def test_damaged_data(self) -> None:
        data = self.directory / "data"
        data.mkdir()
        (data / "state").write_bytes(b"?" * 99)

        self.assertRefused("data_dir", "data/state")

    def test_data_of_another_user(self) -> None:
        """Where others may write, a start is refused; elsewhere it may be meant so."""
        (self.directory / "data").mkdir(0o700)
        self.machine.uid = os.geteuid() + 1
        self.assertHint("data_dir", "belongs to another user", "the user of the node")

        (self.directory / "data").chmod(0o777)
        self.assertRefused("data_dir", "another user's", "chown")

    def test_all_at_once(self) -> None:
        """Each is told, in the order of the lines."""
        self.write("tokens", "x", 0o600)
        self.peer = self.forge.issue("n2.test", ends=-timedelta(hours=1))
        self.replace("interface=192.0.2.1", "interface=192.0.2.7")

        error = self.assertRaises(ConfigError, self.check)

        assert error is not None
        lines = [int(told.split(":")[1]) for told in self.shown(error.problems)]
        self.assertEqual(lines, [2, 9, 9, 15, 15])


class Hints(PreflightTestCase):
    """What may be meant so does not fail the check."""

    def test_privileged_port(self) -> None:
        """The node may have privileges that who checks its settings has not."""
        self.text = self.text.replace("listen: tcp:8500", "listen: tcp:443")

        self.assertHint("listen: tcp:443", "at port 443", "CAP_NET_BIND_SERVICE")

    def test_single_node_without_url(self) -> None:
        """A URL that nobody has set may not be the one that clients use."""
        alone = self.text.replace("- n2.test:8300\n- n3.test:8300\n", "")
        self.text = alone.replace("  advertise: https://n1.test:8500\n", "")
        self.assertHint("certificate: {http_certificate}", "it is not for 192.0.2.1")

        self.text = alone.replace("https://n1.test", "https://n2.test")
        error = self.assertRaises(ConfigError, self.check)
        assert error is not None
        self.assertIn("it is not for n2.test", str(error))

    def test_expires_soon(self) -> None:
        self.http = self.forge.issue("n1.test", ends=timedelta(days=9, hours=1))

        self.assertHint("certificate: {http_certificate}", "it expires in 9 days")

    def test_issuer_has_expired(self) -> None:
        """One that others do not need, as after new authorities, does no harm."""
        self.peer = self.forge.issue("n1.test", ends=40 * DAY)
        with self.peer.certificate.open("ab") as file:
            file.write(self.forge.cross_signed(trustme.CA(), -DAY))

        self.assertHint(
            "certificate: {certificate}", "of an issuer in it: it has expired"
        )

    def test_key_open_to_others(self) -> None:
        self.peer = self.forge.issue("n1.test", ends=40 * DAY)
        self.peer.key.chmod(0o640)

        self.assertHint("private_key: {key}", "chmod 600")

    def test_peer_that_does_not_resolve(self) -> None:
        """A name may come to be when its node does, as in Kubernetes."""
        self.machine.names = ("n1.test", "n2.test")

        self.assertHint("peers:", "n3.test, which does not resolve here (Name or")

    def test_something_else_in_data(self) -> None:
        """A fresh file system is fine, somebody's home is not."""
        data = self.directory / "data"
        (data / "lost+found").mkdir(parents=True)
        self.assertEqual(self.check(), [])

        for name in "abcd":
            (data / name).touch()
        self.assertHint("data_dir", "holds something else (a, b, c, ...)")

    def test_nobody_has_the_role_of_a_node(self) -> None:
        """Nodes that forward for clients with certificates need a role of their own."""
        self.text = self.text.replace("n1.test: node, ", "")

        self.assertHint("roles:", "gives no name in", "the role node")

    def test_role_of_node_for_a_name_in_other_letters(self) -> None:
        """Requests are served by the name as it is written in the certificate."""
        self.text = self.text.replace("n1.test: node", "N1.test: node")

        self.assertHint("roles:", "gives no name in", "the role node")

    def test_certificate_that_is_its_own_authority(self) -> None:
        """A certificate that is signed by itself may stand where its authority does."""
        self.http = self.forge.issue("n1.test", ends=40 * DAY, self_signed=True)
        own = str(self.http.certificate)
        start = self.text.index("    ca: {ca}")
        self.text = self.text[:start] + self.text[start:].replace("{ca}", own, 1)

        self.assertEqual(self.check(), [])

    def test_authority_of_http_that_the_system_does_not_know(self) -> None:
        self.text = self.text.replace("    ca: {ca}\n", "")
        start = self.text.index("    roles:")
        self.text = self.text[:start] + self.text[self.text.index("raft:") :]

        self.assertHint("certificate: {http", "set http.tls.ca to the authority")


class ThisMachine(SynchronousTestCase):
    """What the operating system says of itself, whatever the machine."""

    def test_addresses(self) -> None:
        """Those of the loopback interface are ours; those of documentation are not."""
        machine = LocalHost()

        self.assertIs(machine.unresolved("127.0.0.1"), None)
        self.assertTrue(machine.has("127.0.0.1"))
        self.assertFalse(machine.has("192.0.2.1"))
        self.assertTrue(machine.unresolved("no host name"))

    def test_address_of_an_interface_that_is_not_there(self) -> None:
        self.assertFalse(LocalHost().has("fe80::1%nowhere0"))

    def test_may_bind(self) -> None:
        self.assertTrue(LocalHost().may_bind(8300))
