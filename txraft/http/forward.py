"""Forward a request to the HTTP address of the leader, once.

The point is the outcome of a write whose answer is missing. It certainly had no effect
only if no byte of it can have been sent; else its outcome is unknown, and it is never
sent again.
"""

from __future__ import annotations

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from txraft.client.exchange import (
    NoAnswer,
    NodeRequest,
    NodeResponse,
    NotSent,
    ask,
    begin,
    read,
)
from txraft.http.answers import NOT_APPLIED, OUTCOME, REFUSED, Answer, Header, unknown
from txraft.http.auth import CONSUL_TOKEN, FORWARDED_ROLE, token_in
from txraft.http.inflight import CLIENT, FORWARDED, SEQUENCE, HTTPCall
from txraft.http.limits import HTTPLimits
from txraft.http.roles import Role
from txraft.http.streams import Relayed, Streamed

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
MAX_REPLY_BYTES = 1 << 16
INSUFFICIENT_STORAGE = 507
"""The status of a quota's refusal: a retry is of no use."""

LEADER = b"X-Txraft-Leader"
"""The header that names the leader, so that a client asks it directly next time."""


class NotDelivered(Exception):
    """The leader did not take the request. It had no effect and may be sent again."""


class Forwarder:
    """Sends calls to other nodes, in the *name* of this node."""

    def __init__(
        self, client: HTTPClient, clock: IReactorTime, limits: HTTPLimits, name: str
    ) -> None:
        self._client = client
        self._clock = clock
        self._limits = limits
        self._name = name

    async def forward(self, call: HTTPCall, url: str) -> Answer:
        """Send *call* to the node at *url* and return its answer.

        Raises: NotDelivered if it certainly had no effect; Refusal with the outcome
            `unknown` if it may have had one
        """
        # Before the first byte is sent: if the deadline comes meanwhile, the client is
        # told `unknown`.
        call.submitted = call.writes
        limits, clock = self._limits, self._clock
        question = NodeRequest(call.method.decode("ascii"), call.target(), _body(call))
        url = url.rstrip("/")
        try:
            response = await begin(
                self._client,
                clock,
                url,
                question,
                self._headers(call),
                _left(call, clock),
            )
            if _is_stream(call, response):
                stream = Relayed(response, clock, _left(call, clock))
                return Streamed(response.code, stream, *_headers(response.headers, url))
            reply = await read(
                response, clock, url, _left(call, clock), limits.max_relayed_bytes
            )
        except NotSent as error:
            call.submitted = False
            raise NotDelivered(f"the leader at {url} is not reached") from error
        except (NoAnswer, CancelledError) as error:
            # A read may be sent again, a write never: it could be done twice.
            if not call.writes:
                raise NotDelivered(f"the leader at {url} gave no answer") from error
            raise unknown(
                f"The outcome is unknown: the leader at {url} gave no whole answer."
            ) from error
        return _relay(call, url, reply)

    async def tell(self, url: str, target: str) -> tuple[int, str]:
        """Send a PUT of *target* to the node at *url*, in the name of this node.

        Returns: the status, and the sentence in the answer
        Raises: NotSent, NoAnswer
        """
        headers = {
            FORWARDED: [self._name.encode()],
            FORWARDED_ROLE: [str(Role.OPERATOR).encode("ascii")],
        }
        seconds = self._limits.request_timeout
        reply = await ask(
            http=self._client,
            clock=self._clock,
            url=url.rstrip("/"),
            request=NodeRequest("PUT", target, b""),
            headers=Headers(headers),
            seconds=seconds,
            max_bytes=MAX_REPLY_BYTES,
        )
        return reply.status, reply.sentence

    def _headers(self, call: HTTPCall) -> Headers:
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


def _left(call: HTTPCall, clock: IReactorTime) -> float:
    return max(0.0, call.deadline - clock.seconds())


def _body(call: HTTPCall) -> bytes | IBodyProducer | None:
    if call.resend is not None:
        return call.resend()
    return call.body if call.method == b"PUT" else None


def _is_stream(call: HTTPCall, response: IResponse) -> bool:
    """Return whether to pass the answer on while it comes: it is a backup."""
    return call.upload is not None and not call.writes and response.code == 200


def _headers(headers: Headers, url: str) -> list[Header]:
    """Return the headers of an answer from *url* that are passed on."""
    found = [
        (name, values[0])
        for name in RELAYED_HEADERS
        if (values := headers.getRawHeaders(name))
    ]
    return [*found, (LEADER, url.encode("ascii", "replace"))]


def _relay(call: HTTPCall, url: str, reply: NodeResponse) -> Answer:
    answer = Answer(reply.status, reply.body, *_headers(reply.headers, url))
    if answer.status < 500 or answer.status == INSUFFICIENT_STORAGE:
        return answer
    if answer.header(OUTCOME) == REFUSED[1]:
        call.submitted = False
    elif answer.header(OUTCOME) == NOT_APPLIED[1]:
        call.submitted = False
        # With Retry-After the leader is too busy: to ask it again makes that worse.
        if answer.header(b"Retry-After") is None:
            raise NotDelivered(f"the node at {url} does not take it")
    elif call.writes and answer.header(OUTCOME) is None:
        raise unknown(
            f"The outcome is unknown: the leader at {url} answered {answer.status}."
        )
    return answer
