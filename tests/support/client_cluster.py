"""A cluster that answers as its script says, in memory and on a clock."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlsplit

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http import Request
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from txraft.client import Client, ClientLimits

Script = Callable[[Request], object]


def answer(status: int, body: object = b"", **headers: str) -> Script:
    """Answer with *status*, and *body* as it is or as JSON."""

    def write(request: Request) -> None:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.write(data)
        request.finish()

    return write


def silence(request: Request) -> None:
    """Take the request and answer nothing."""


def record(key: str, value: bytes, index: int = 7, **more: object) -> dict[str, object]:
    """Shape a key as nodes do."""
    return {
        "Key": key,
        "Value": b64encode(value).decode() if value else None,
        "Flags": 0,
        "CreateIndex": index,
        "ModifyIndex": index,
        "LockIndex": 0,
        **more,
    }


class Node(Resource):
    """One node: answers what is scripted, in order, then with `default`."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Script] = []
        self.default: Script = answer(500, b"nothing is scripted")
        self.asked: list[str] = []
        self.bodies: list[bytes] = []

    def render(self, request: Request) -> int:
        """Answer one request."""
        self.asked.append(f"{request.method.decode()} {request.uri.decode()}")
        self.bodies.append(request.content.read())
        step = self.script.pop(0) if self.script else self.default
        step(request)
        return NOT_DONE_YET


@implementer(IAgent)
class Network:
    """Carries requests to nodes by host; a host may refuse or lose its answers."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.agents: dict[str, RequestTraversalAgent] = {}
        self.refusing: set[str] = set()
        self.losing: set[str] = set()
        self.tried: list[str] = []

    def add(self, host: str) -> Node:
        """Add a node at http://*host*."""
        node = self.nodes[host] = Node()
        self.agents[host] = RequestTraversalAgent(node)
        return node

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: object = None,
    ) -> Deferred[object]:
        """Send a request, and carry what can move."""
        host = urlsplit(uri.decode()).netloc
        self.tried.append(host)
        if host in self.refusing or host not in self.agents:
            return fail(ConnectionRefusedError())
        answered = self.agents[host].request(method, uri, headers, bodyProducer)
        if host in self.losing:
            self.flush()
            return fail(ResponseNeverReceived([Failure(ConnectionLost())]))
        return answered

    def flush(self) -> None:
        """Carry all bytes that can move."""
        for _ in range(8):
            for agent in self.agents.values():
                agent.flush()


class ClientCase(SynchronousTestCase):
    """A client of three nodes: `self.a`, `self.b` and `self.c`."""

    limits = ClientLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network()
        self.a, self.b, self.c = (self.network.add(name) for name in "abc")
        self.client = self.make_client()

    def make_client(self, **options: object) -> Client:
        """Make a client of all three nodes."""
        urls = ["http://a", "http://b", "http://c"]
        http = HTTPClient(self.network)
        return Client(urls, self.clock, http=http, limits=self.limits, **options)

    def done(self, deferred: Deferred[object]) -> object:
        """Carry bytes, and return what *deferred* has come to."""
        self.network.flush()
        return self.successResultOf(deferred)

    def failed(self, deferred: Deferred[object], *errors: type[Exception]) -> Exception:
        """Carry bytes, and return what *deferred* has failed with."""
        self.network.flush()
        return self.failureResultOf(deferred, *errors).value

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass in steps, and carry bytes after each."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.network.flush()
