"""Real connections: refused ports, unread bodies, a clean end."""

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.http_network import Reply, ScriptedNode, whole
from txraft.client.exchange import connection_pool, pooled_client
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_site
from txraft.kv.commands import encode_advertise
from txraft.node.worker import ThreadWorker

LIMITS = HTTPLimits(leader_wait=0.5, retry_interval=0.1)


class Collector(Protocol):
    """Sends bytes and keeps what comes back until the other end closes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.received = data, b""
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.received)


class Loopback(TestCase):
    """A leader and a follower that listen on loopback."""

    def setUp(self) -> None:
        self.worker = ThreadWorker(reactor, "snapshot")
        self.addCleanup(self.worker.stop)
        self.leader, self.leader_port = self.listen("n1:8300")
        self.follower, self.follower_port = self.listen("n2:8300")
        self.leader.lead()
        self.follower.follow("n1:8300")
        url = f"http://127.0.0.1:{self.leader_port}"
        self.follower.commit(encode_advertise("n1:8300", url))
        self.client = self.make_client()

    def make_client(self) -> HTTPClient:
        pool = connection_pool(reactor, 4, 10)
        self.addCleanup(pool.closeCachedConnections)
        return pooled_client(reactor, pool, LIMITS.connect_timeout)

    def listen(self, address: str) -> tuple[ScriptedNode, int]:
        node = ScriptedNode(address)
        site = make_site(
            node,
            node.fsm,
            self.make_client(),
            reactor,
            LIMITS,
            address=address,
            url="http://unused",
            worker=self.worker,
        )
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        if address == "n1:8300":
            self.stop_leader = port.stopListening
        return node, port.getHost().port

    async def ask(self, port: int, method: str, path: str, body: bytes = b"") -> Reply:
        url = f"http://127.0.0.1:{port}{path}"
        response = await self.client.request(method, url, data=body)
        return await whole(response)

    async def test_put_through_a_follower(self) -> None:
        value = bytes(range(256)) * 2048

        put = await self.ask(self.follower_port, "PUT", "/v1/kv/a%2Fb", value)
        got = await self.ask(self.follower_port, "GET", "/v1/kv/a/b?raw")

        self.assertEqual((put.status, put.body), (200, b"true"))
        self.assertEqual((got.status, got.body), (200, value))

    async def test_leader_is_gone(self) -> None:
        """Idle connections end with the port, and nobody took the request."""
        await self.ask(self.follower_port, "PUT", "/v1/kv/a", b"v")
        await self.stop_leader()

        reply = await self.ask(self.follower_port, "PUT", "/v1/kv/b", b"v")

        self.assertEqual((reply.status, reply.outcome), (500, "not-applied"))
        self.assertEqual(list(self.leader.fsm), ["a"])

    async def test_refusal_reaches_a_client_that_is_still_sending(self) -> None:
        """Closing at once would reset the connection before the answer is read."""
        body = bytes(8 << 20)
        head = b"PUT /v1/kv/k HTTP/1.1\r\nHost: n1\r\n"
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.leader_port)

        collector = await connectProtocol(endpoint, Collector(head + body))
        received = await collector.closed

        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received[:80])
        self.assertTrue(received.endswith(b" bytes.\n"))
