"""Nodes that speak HTTP in memory on one clock, with outcomes that a test scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import treq
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.errors import KnownPeer, NotLeader, RaftError, UnknownPeer
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_api
from txraft.kv.backup import describe, pack
from txraft.kv.commands import encode_advertise
from txraft.kv.state import KeyValueFSM
from txraft.node.admission import Admission
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState
from txraft.node.metrics import NodeMetrics, PeerMetrics
from txraft.node.pending import ApplyResult
from txraft.node.worker import MemoryWorker
from txraft.transport.validity import Validity


class ScriptedNode:
    """The part of Raft that HTTP calls, whose outcomes a test decides.

    A leader commits at once, unless *script* holds what to answer next: an error, or
    a Deferred of the test's own.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.fsm = KeyValueFSM()
        self.state = RaftState.FOLLOWER
        self.leader: str | None = None
        self.last_contact: float | None = None
        self.members = {address}
        self.script: list[RaftError | Deferred[object]] = []
        self.applied: list[bytes] = []
        self.observers: list[Observer] = []
        self.index = 0
        self.barriers = 0
        self.followers: dict[str, PeerMetrics] = {}
        self.more_stats: dict[str, str] = {}
        self.admissions: list[Admission] = []
        self.validities: list[Validity] = []
        self.watchers: list[Callable[[Configuration], object]] = []

    def lead(self) -> None:
        """Become the leader."""
        self.state = RaftState.LEADER
        self._observe(RaftState.LEADER)
        self.follow(self.address)

    def follow(self, leader: str | None) -> None:
        """Learn who leads."""
        self.leader = leader
        if leader != self.address:
            self.state = RaftState.FOLLOWER
        self._observe(LeaderObservation(leader))

    def commit(self, data: bytes) -> ApplyResult:
        """Apply *data* as an entry that a quorum holds."""
        self.index += 1
        response = self.fsm.apply(Entry(self.index, 1, LogType.COMMAND, data))
        return ApplyResult(self.index, 1, response)

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[ApplyResult]:
        def done() -> ApplyResult:
            self.applied.append(data)
            return self.commit(data)

        return self._act(done)

    def barrier(self, timeout: float | None = None) -> Deferred[int]:
        self.barriers += 1
        return self._act(lambda: self.index)

    def linearizable(self) -> Deferred[int]:
        return self._act(lambda: self.index)

    def add_peer(self, address: str) -> Deferred[int]:
        if address in self.members:
            return self._act(lambda: 0, KnownPeer("known"))
        return self._act(lambda: self.members.add(address) or 1)

    def admit_peer(self, address: str) -> Deferred[Admission]:
        if self.admissions:
            return self._act(lambda: self.admissions.pop(0))
        if address in self.members:
            return self._act(lambda: Admission(True))
        return self._act(lambda: self.members.add(address) or Admission(True))

    def remove_peer(self, address: str) -> Deferred[int]:
        if address not in self.members:
            return self._act(lambda: 0, UnknownPeer(f"{address} is not a member"))
        return self._act(lambda: self.members.remove(address) or 1)

    def peers(self) -> list[str]:
        return sorted(self.members)

    @property
    def configuration(self) -> Configuration:
        return Configuration.of_voters(self.peers())

    @property
    def term(self) -> int:
        return 1

    def stats(self) -> dict[str, str]:
        indexes = ("applied_index", "commit_index", "last_log_index")
        told = dict.fromkeys(indexes, str(self.index))
        return {
            **told,
            "state": str(self.state),
            "last_contact": "0",
            **self.more_stats,
        }

    def metrics(self) -> NodeMetrics:
        return NodeMetrics(
            last_index=self.index, applied_index=self.index, peers=self.followers
        )

    def remove_server(self, id: str) -> Deferred[int]:
        return self.remove_peer(id)

    def transfer_leadership(self, target: str | None = None) -> Deferred[None]:
        return self._act(lambda: self.follow(target or "other:8300"))

    def register_observer(self, observer: Observer) -> None:
        self.observers.append(observer)

    def deregister_observer(self, observer: Observer) -> None:
        if observer in self.observers:
            self.observers.remove(observer)

    def watch_members(
        self, callback: Callable[[Configuration], object]
    ) -> Callable[[], None]:
        self.watchers.append(callback)
        return self.watchers.clear

    def change_members(self, *members: str) -> None:
        """Commit that these are the members."""
        self.members = set(members)
        for watcher in list(self.watchers):
            watcher(self.configuration)

    def _observe(self, data: object) -> None:
        for observer in list(self.observers):
            observer.observe(Observation(self, data))  # type: ignore[arg-type]

    def _act(self, work: Callable[[], object], error: RaftError | None = None):  # type: ignore[no-untyped-def]
        if self.state is not RaftState.LEADER:
            return fail(NotLeader(self.leader))
        outcome = self.script.pop(0) if self.script else error
        if isinstance(outcome, Deferred):
            return outcome.addCallback(lambda _: work())
        return (
            fail(outcome)
            if outcome is not None
            else succeed(None).addCallback(lambda _: work())
        )


@implementer(IAgent)
class Network:
    """Routes requests by host and port; ports can refuse, or lose every answer."""

    def __init__(self) -> None:
        self.agents: dict[str, RequestTraversalAgent] = {}
        self.refusing: set[str] = set()
        self.losing_answers: set[str] = set()
        self.requests: list[tuple[bytes, bytes, Headers]] = []

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: object = None,
    ) -> Deferred[object]:
        self.requests.append((method, uri, headers or Headers()))
        netloc = urlsplit(uri.decode("ascii")).netloc
        if netloc in self.refusing or netloc not in self.agents:
            return fail(ConnectionRefusedError())
        answer = self.agents[netloc].request(method, uri, headers, bodyProducer)
        if netloc in self.losing_answers:
            self.flush()
            return fail(ResponseNeverReceived([Failure(ConnectionLost())]))
        return answer

    def flush(self) -> None:
        """Carry all bytes that can move."""
        for _ in range(8):
            for agent in self.agents.values():
                agent.flush()


@dataclass
class Reply:
    """A whole response."""

    status: int
    body: bytes
    headers: Headers

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None

    @property
    def outcome(self) -> str | None:
        return self.header("X-Txraft-Outcome")


class HTTPCase(SynchronousTestCase):
    """Nodes with an HTTP API each: `self.n1` leads, `self.n2` follows and knows."""

    limits = HTTPLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network()
        self.worker = MemoryWorker()
        self.n1, self.n2 = self.node("n1"), self.node("n2")
        self.n1.lead()
        self.n2.follow("n1:8300")
        for node in (self.n1, self.n2):
            node.commit(encode_advertise("n1:8300", "http://n1:8500"))

    def node(
        self, name: str, limits: HTTPLimits | None = None, called: str = ""
    ) -> ScriptedNode:
        """Make a node that serves HTTP at its name, port 8500."""
        node = ScriptedNode(f"{name}:8300")
        client = HTTPClient(self.network)
        api = make_api(
            node,
            node.fsm,
            client,
            self.clock,
            limits or self.limits,
            node.address,
            self.worker,
            validities=lambda: node.validities,
            name=called,
        )
        self.network.agents[f"{name}:8500"] = RequestTraversalAgent(api)
        self.addCleanup(api.close)
        return node

    def ask(
        self,
        node: ScriptedNode,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        scheme: str = "http",
    ) -> Deferred[Reply]:
        """Send a request to *node* and carry bytes until nothing moves."""
        agent = self.network.agents[node.address.replace("8300", "8500")]
        raw = Headers({name: [value] for name, value in (headers or {}).items()})
        url = f"{scheme}://{node.address.replace('8300', '8500')}{path}"
        producer = Body(body) if body is not None else None
        answer = agent.request(method.encode(), url.encode(), raw, producer)
        replied = answer.addCallback(whole)
        self.network.flush()
        return replied

    def reply(self, *request: object, **more: object) -> Reply:
        """Send a request that is answered at once."""
        return self.successResultOf(self.ask(*request, **more))  # type: ignore[arg-type]

    def work(self, asked: Deferred[Reply]) -> Reply:
        """Let the worker do all it is given; return the answer to *asked*."""
        while self.worker.perform():
            self.network.flush()
        return self.successResultOf(asked)

    def advance(self, *seconds: float) -> None:
        """Let time pass, in steps, and carry bytes after each."""
        for step in seconds:
            self.clock.advance(step)
            self.network.flush()


def whole(response: object) -> Deferred[Reply]:
    return treq.content(response).addCallback(
        lambda body: Reply(response.code, body, response.headers)  # type: ignore[attr-defined]
    )


def backup_of(fsm: KeyValueFSM) -> bytes:
    """Make a backup of the state of *fsm*."""
    captured = fsm.snapshot()
    members = Configuration.of_voters(["a:1"])
    return b"".join(
        pack(lambda size: describe(1, 1, members, size), lambda: captured.pieces(1000))
    )


class Body:
    """A request body of bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: object) -> Deferred[None]:
        consumer.write(self._data)  # type: ignore[attr-defined]
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...
