"""Passing a request on to the leader's HTTP address, once.

What matters here is to know what became of a write whose answer did not come: only
when no byte of it can have been sent is it certain that it has no effect.
"""

from __future__ import annotations

from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from txraft.http.answers import NOT_APPLIED, OUTCOME, Answer, unknown
from txraft.http.auth import CONSUL_TOKEN, FORWARDED_ROLE, token_in
from txraft.http.calls import CLIENT, FORWARDED, SEQUENCE, Call
from txraft.http.limits import HTTPLimits

RELAYED_HEADERS = (
    b"Content-Type",
    b"Content-Security-Policy",
    b"Allow",
    b"Retry-After",
    b"X-Consul-Index",
    b"X-Consul-KnownLeader",
    b"X-Consul-LastContact",
    OUTCOME,
)
_NOT_SENT = (ConnectError, DNSLookupError, RequestNotSent, SchemeNotSupported)
_BROKEN = (
    ResponseFailed,
    RequestTransmissionFailed,
    RequestGenerationFailed,
    ConnectionClosed,
    CancelledError,
    TimeoutError,
)


LEADER = b"X-Txraft-Leader"
"""Tells a client where its request was forwarded to: it goes there next time."""


class NotDelivered(Exception):
    """The leader did not take the request, which has no effect; try again."""


class _TooLong(Exception):
    """The leader's answer is longer than is passed on."""


def forwarding_pool(reactor: Any, limits: HTTPLimits) -> HTTPConnectionPool:
    """Make the pool of connections that forwarding needs; close it at the end.

    It never sends a request twice by itself, as it would a DELETE that got no answer:
    the first may have been applied. It drops idle connections long before the other
    end does, so that few requests meet a closing connection.
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.retryAutomatically = False
    pool.maxPersistentPerHost = limits.max_idle_forwards
    pool.cachedConnectionTimeout = max(1, int(limits.idle_timeout / 2))
    return pool


def forwarding_client(
    reactor: Any,
    pool: HTTPConnectionPool,
    limits: HTTPLimits,
    policy: IPolicyForHTTPS | None = None,
) -> HTTPClient:
    """Make the client that `Forwarder` needs, on a pool of `forwarding_pool`.

    *policy* says what it shows to HTTPS servers, and which it trusts.
    """
    agent = Agent(
        reactor,
        policy or BrowserLikePolicyForHTTPS(),
        connectTimeout=limits.connect_timeout,
        pool=pool,
    )
    return HTTPClient(agent)


class Forwarder:
    """Sends calls to other nodes; *name* is how this one signs them."""

    def __init__(
        self, client: HTTPClient, clock: IReactorTime, limits: HTTPLimits, name: str
    ) -> None:
        self._client = client
        self._clock = clock
        self._limits = limits
        self._name = name

    async def forward(self, call: Call, url: str) -> Answer:
        """Send *call* to the node at *url* and return its answer.

        Raises: NotDelivered when it certainly has no effect there; Refusal with
            the outcome `unknown` when it may have.
        """
        call.submitted = call.writes
        try:
            response, body = await self._exchange(call, url)
        except _NOT_SENT as error:
            call.submitted = False
            raise NotDelivered(f"the leader at {url} is not reached") from error
        except (*_BROKEN, _TooLong) as error:
            if not call.writes:
                raise NotDelivered(f"the leader at {url} gave no answer") from error
            raise unknown(
                f"The outcome is unknown: the leader at {url} gave no whole answer."
            ) from error
        return _relay(call, url, response, body)

    async def _exchange(self, call: Call, url: str) -> tuple[IResponse, bytes]:
        remaining = max(0.0, call.deadline - self._clock.seconds())
        sent = self._client.request(
            call.method.decode("ascii"),
            url.rstrip("/") + call.target(),
            headers=self._headers(call),
            data=_Body(call.body) if call.method == b"PUT" else None,
            allow_redirects=False,
            unbuffered=True,
        )
        response = await sent.addTimeout(remaining, self._clock)
        remaining = max(0.0, call.deadline - self._clock.seconds())
        pieces: list[bytes] = []
        room = self._limits.max_relayed_bytes

        def collect(data: bytes) -> None:
            nonlocal room
            room -= len(data)
            if room < 0:
                raise _TooLong
            pieces.append(data)

        await treq.collect(response, collect).addTimeout(remaining, self._clock)
        return response, b"".join(pieces)

    def _headers(self, call: Call) -> Headers:
        headers = {FORWARDED: [self._name.encode()]}
        if call.once is not None:
            client, sequence = call.once
            headers[CLIENT] = [client.encode("ascii")]
            headers[SEQUENCE] = [b"%d" % sequence]
        token = token_in(call.request)
        if token is not None:
            headers[CONSUL_TOKEN] = [token]
        headers[FORWARDED_ROLE] = [str(call.role).encode("ascii")]
        return Headers(headers)


@implementer(IBodyProducer)
class _Body:
    """A request's body, small enough to be sent in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to pause."""

    def resumeProducing(self) -> None:
        """Nothing is left to resume."""

    def stopProducing(self) -> None:
        """Nothing is left to stop."""


def _relay(call: Call, url: str, response: IResponse, body: bytes) -> Answer:
    headers = [
        (name, values[0])
        for name in RELAYED_HEADERS
        if (values := response.headers.getRawHeaders(name))
    ]
    headers.append((LEADER, url.encode("ascii", "replace")))
    answer = Answer(response.code, body, *headers)
    if answer.status < 500:
        return answer
    if answer.header(OUTCOME) == NOT_APPLIED[1]:
        call.submitted = False
        if answer.header(b"Retry-After") is None:
            raise NotDelivered(f"the node at {url} does not take it")
    elif call.writes and answer.header(OUTCOME) is None:
        raise unknown(
            f"The outcome is unknown: the leader at {url} answered {answer.status}."
        )
    return answer
