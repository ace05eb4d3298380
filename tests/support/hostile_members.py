"""A cluster of real `twistd raft` processes with TLS, which attackers find running.

The processes outlive single tests, as what a test does to one of them must not
matter to the next. Attackers use blocking sockets: nothing here runs a reactor.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.support.forgery import Forge, Pair
from tests.support.process_clusters import LEADERLESS
from tests.support.twistd import CHECKOUT, TWISTD, free_port
from txraft.core.messages import (
    AnyRequest,
    AppendEntriesRequest,
    ForwardRequest,
    Header,
    Request,
    RequestPreVoteRequest,
)
from txraft.wire.requests import encode_request

PATIENCE = 60.0
STEP = 0.02
SETTINGS = """
data_dir: {name}
listen: tcp:{port}:interface=127.0.0.1
peers: [{peers}]
http: {{listen: "tcp:{http}:interface=127.0.0.1"}}
raft: {{heartbeat_timeout: 400ms, election_timeout: 400ms,
       leader_lease_timeout: 300ms}}
limits: {{max_warnings: 1000000, handshake_timeout: {handshake}}}
tls:
  certificate: {certificate}
  private_key: {key}
  ca: {ca}
  server_names: {{{names}}}
"""


class Member:
    """One process, its ports and what it logs."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.port, self.http = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.directory = directory
        self.log_path = directory / f"{name}.log"
        self.pair: Pair | None = None
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "raft"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", f"{self.name}.yaml"],
                cwd=self.directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(CHECKOUT),
                    **self.environment,
                },
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def hang_up(self) -> None:
        """Send SIGHUP."""
        assert self.process is not None, "it runs"
        self.process.send_signal(signal.SIGHUP)

    @property
    def log(self) -> str:
        """What was logged so far."""
        return self.log_path.read_text()

    def lines(self, *words: str, since: int = 0) -> list[str]:
        """List the lines that hold all of *words*, after *since* characters."""
        lines = self.log[since:].splitlines()
        return [line for line in lines if all(word in line for word in words)]

    def request(
        self, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, bytes]:
        """Make one HTTP request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", data, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()


class SecureCluster(SynchronousTestCase):
    """Three members n1 to n3, and n4, which belongs to them but is not there.

    So attackers may listen at the address of n4, or come with its certificate. The
    first test of a class starts them. They end with the class, or when trial, which
    has no end of a class, comes to the next one or to its own end.
    """

    running: ClassVar[type[SecureCluster] | None] = None
    handshake: ClassVar[str] = "20s"
    directory: ClassVar[Path]
    forge: ClassVar[Forge]
    members: ClassVar[list[Member]]
    absent: ClassVar[Member]

    def setUp(self) -> None:
        super().setUp()
        if SecureCluster.running is not type(self):
            SecureCluster.end_running()
            type(self).begin()
        self._logged = {member.name: len(member.log) for member in self.members}

    @classmethod
    def tearDownClass(cls) -> None:
        SecureCluster.end_running()

    @staticmethod
    def end_running() -> None:
        """End the processes that run, if any."""
        if SecureCluster.running is not None:
            SecureCluster.running.end()

    @classmethod
    def begin(cls) -> None:
        """Start the processes."""
        SecureCluster.running = cls
        cls.directory = Path(mkdtemp())
        cls.forge = Forge(cls.directory)
        every = [Member(cls.directory, f"n{i}") for i in range(1, 5)]
        *cls.members, cls.absent = every
        cls.committed = 0
        for member in every:
            member.pair = cls.forge.issue(identity(member))
            cls.configure(member, every)
        for member in cls.members:
            member.start()
        wait(lambda: all(m.lines("takes part") for m in cls.members), cls.all_logs)
        wait(lambda: cls.leader() is not None, cls.all_logs)

    @classmethod
    def end(cls) -> None:
        """End the processes and remove their files."""
        SecureCluster.running = None
        for member in cls.members:
            member.stop()
        rmtree(cls.directory)

    @classmethod
    def configure(cls, member: Member, every: Sequence[Member]) -> None:
        """Write the settings of *member*."""
        assert member.pair is not None, "it has a certificate"
        text = SETTINGS.format(
            name=member.name,
            port=member.port,
            http=member.http,
            peers=", ".join(m.address for m in every),
            certificate=member.pair.certificate,
            key=member.pair.key,
            ca=cls.forge.ca_file,
            handshake=cls.handshake,
            names=", ".join(f'"{m.address}": {identity(m)}' for m in every),
        )
        (cls.directory / f"{member.name}.yaml").write_text(text)

    @classmethod
    def all_logs(cls) -> str:
        """Return the logs of all members, for who has waited in vain."""
        return "\n".join(f"== {m.name}\n{m.log}" for m in cls.members)

    @classmethod
    def leader(cls) -> Member | None:
        """Return the member that all say leads, if they agree."""
        said = {m.request("GET", "/v1/status/leader") for m in cls.members}
        for member in cls.members:
            if said == {(200, f'"{member.address}"'.encode())}:
                return member
        return None

    def assertCommits(self) -> None:
        """Assert that the cluster still takes a write and gives it back.

        A busy machine may cost a leader its leadership; then it takes a moment.
        """
        cls = type(self)
        cls.committed += 1
        value = str(cls.committed).encode()
        self.assertAnswers(self.members[0], ("PUT", "/v1/kv/alive", value), b"true")
        read = ("GET", "/v1/kv/alive?raw&consistent")
        self.assertAnswers(self.members[1], read, value)

    def assertAnswers(
        self, member: Member, request: tuple[Any, ...], expected: bytes
    ) -> None:
        """Assert what *member* answers, once it has a leader that leads."""
        answer = (0, b"")

        def is_settled() -> bool:
            nonlocal answer
            answer = member.request(*request)
            return answer[0] not in LEADERLESS

        wait(is_settled, lambda: f"{answer}\n{self.all_logs()}")
        self.assertEqual(answer, (200, expected))

    def assertOneLine(self, member: Member, attacker: int, reason: str) -> None:
        """Assert that *member* logs why it closed the connection from a port, once.

        An earlier test may have had a connection from the same port.
        """
        where, since = f"port={attacker})", self._logged[member.name]
        wait(lambda: bool(member.lines(where, since=since)), lambda: member.log[-5000:])
        lines = member.lines(where, since=since)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("closed: ", lines[0])
        self.assertIn(reason, lines[0])
        self.assertNotRegex(lines[0], "[^ -~]")


atexit.register(SecureCluster.end_running)


def identity(member: Member) -> str:
    """Return the name in the certificate of *member*."""
    return f"{member.name}.cluster.test"


def wait(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    """Wait for what other processes bring about."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen in {PATIENCE} s:\n{explain()}")
        time.sleep(STEP)


def client_context(pair: Pair | None) -> ssl.SSLContext:
    """Make a context for attackers: it shows *pair* and trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def dial(member: Member) -> socket.socket:
    """Open a plain connection to the peer port of *member*."""
    return socket.create_connection(("127.0.0.1", member.port), PATIENCE)


def heartbeat(
    leader: str, term: int = 1 << 30, header: Header | None = None
) -> Request:
    """Make the message with which an attacker would take over."""
    return AppendEntriesRequest(term, leader, header=header or Header(1))


def forward(sender: str) -> ForwardRequest:
    """Make the message by which *sender* has the leader append a command."""
    return ForwardRequest([b"nonsense"], Header(1, address=sender))


def encoded(request: AnyRequest) -> bytes:
    """Encode *request* as it is on the wire."""
    return encode_request(request)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the other side closes; a reset is an end too."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except (ConnectionError, ssl.SSLError):
        pass
    return b"".join(pieces)


class Speaker:
    """A TLS connection to *victim* with the certificate of *member*."""

    def __init__(self, victim: Member, member: Member) -> None:
        plain = dial(victim)
        self.victim = victim
        self.port = port_of(plain)
        self.secure = client_context(member.pair).wrap_socket(plain)

    def say(self, request: AnyRequest | bytes) -> None:
        """Send *request*."""
        data = request if isinstance(request, bytes) else encoded(request)
        self.secure.sendall(data)

    def hear(self) -> bytes:
        """Read an answer."""
        return self.secure.recv(1 << 16)

    def close(self) -> None:
        """End the connection."""
        self.secure.close()


def pre_vote(candidate: str) -> Request:
    """Make a request that everybody may answer and nobody is harmed by."""
    header = Header(1, id=candidate, address=candidate)
    return RequestPreVoteRequest(1, candidate, 0, 0, header)


def members_of(member: Member) -> list[str]:
    """Return who belongs to the cluster, as *member* says."""
    return list(json.loads(member.request("GET", "/v1/status/peers")[1]))


def port_of(connection: socket.socket) -> int:
    """Return the port that *connection* comes from."""
    return int(connection.getsockname()[1])


def last_number(text: str) -> int:
    """Return the last number in *text*."""
    return int(re.findall(r"\d+", text)[-1])
