"""The table of what is served, and how a request becomes an answer.

The resource keeps count of requests at work and sees to it that each is answered
once and in time, whatever happens to the work behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txraft.http.answers import (
    NOT_APPLIED,
    TEXT,
    UNKNOWN,
    Answer,
    Refusal,
    not_applied,
    unknown,
)
from txraft.http.calls import Call, parse_key
from txraft.http.cluster import Cluster
from txraft.http.deadlines import Deadlines
from txraft.http.keys import Keys
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits

KEY_PREFIX = b"/v1/kv/"
RETRY_AFTER = (b"Retry-After", b"1")


class Endpoint(NamedTuple):
    """What serves one method of one path, and the query parameters it knows."""

    serve: Callable[[Call], Answer | Deferred[Answer]]
    parameters: frozenset[str] = frozenset()


Routes = dict[bytes, dict[bytes, Endpoint]]


def routes(keys: Keys, cluster: Cluster) -> Routes:
    """Make the table of paths and methods; `KEY_PREFIX` stands for all keys."""
    return {
        KEY_PREFIX: {
            b"GET": Endpoint(keys.get, frozenset({"raw", "stale", "consistent"})),
            b"PUT": Endpoint(keys.put, frozenset({"flags"})),
            b"DELETE": Endpoint(keys.delete),
        },
        b"/v1/status/leader": {b"GET": Endpoint(cluster.leader)},
        b"/v1/status/peers": {b"GET": Endpoint(cluster.peers)},
        b"/v1/operator/raft/peer": {
            b"PUT": Endpoint(cluster.add, frozenset({"address"})),
            b"DELETE": Endpoint(cluster.remove, frozenset({"address"})),
        },
    }


class API(Resource):
    """The root resource: one leaf that serves every path."""

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        table: Routes,
        leadership: Leadership,
        clock: IReactorTime,
        limits: HTTPLimits,
    ) -> None:
        Resource.__init__(self)
        self._routes = table
        self._leadership = leadership
        self._limits = limits
        self._deadlines = Deadlines(clock, limits.request_timeout, self._expired)
        self._in_flight = 0

    def render(self, request: Request) -> int:
        """Answer *request*, now or later."""
        try:
            call, endpoint = self._accept(request)
        except Refusal as refusal:
            refusal.answer.write(request)
            return NOT_DONE_YET
        self._in_flight += 1
        self._deadlines.add(call)
        request.notifyFinish().addErrback(self._disconnected, call)
        result = _serve(endpoint, call)
        if isinstance(result, Answer):
            self._done(result, call)
        else:
            result.addErrback(self._failed, call).addCallback(self._done, call)
        return NOT_DONE_YET

    def close(self) -> None:
        """Let requests at work end, and nothing wait for a leader any longer."""
        self._leadership.close()
        self._deadlines.close()

    def _accept(self, request: Request) -> tuple[Call, Endpoint]:
        if self._in_flight >= self._limits.max_requests_in_flight:
            raise not_applied("The node is busy: try again in a second.", RETRY_AFTER)
        call = Call(request)
        is_key = call.path.startswith(KEY_PREFIX)
        methods = self._routes.get(KEY_PREFIX if is_key else call.path)
        if methods is None:
            raise Refusal(404, "There is nothing at this path.")
        endpoint = methods.get(call.method)
        if endpoint is None:
            allowed = b", ".join(methods)
            sentence = f"This path takes only {allowed.decode('ascii')}."
            raise Refusal(405, sentence, (b"Allow", allowed))
        for name in call.parameters.keys() - endpoint.parameters:
            raise Refusal(400, f"The parameter {name!r} is not served here.")
        if is_key:
            call.key = parse_key(
                call.path[len(KEY_PREFIX) :], self._limits.max_key_bytes
            )
        if call.method == b"PUT" and request.content is not None:
            call.body = request.content.read()
        return call, endpoint

    def _failed(self, failure: Failure, call: Call) -> Answer:
        error = failure.value
        if isinstance(error, Refusal):
            return error.answer
        self.log.failure("a request failed", failure)
        outcome = UNKNOWN if call.submitted else NOT_APPLIED
        return Answer(
            500, b"The node failed to serve this; see its log.\n", TEXT, outcome
        )

    def _done(self, answer: Answer, call: Call) -> None:
        self._in_flight -= 1
        self._answer(answer, call)

    def _expired(self, call: Call) -> None:
        seconds = f"{self._limits.request_timeout:g} s"
        if call.submitted:
            refusal = unknown(f"The outcome is unknown: none was reached in {seconds}.")
        else:
            refusal = not_applied(f"The request was not applied within {seconds}.")
        self._answer(refusal.answer, call)

    def _answer(self, answer: Answer, call: Call) -> None:
        if not call.answered:
            call.answered = True
            self._deadlines.discard(call)
            answer.write(call.request)

    def _disconnected(self, _failure: Failure, call: Call) -> None:
        """Forget a client that went away; what it asked for goes on."""
        call.answered = True
        self._deadlines.discard(call)


def _serve(endpoint: Endpoint, call: Call) -> Answer | Deferred[Answer]:
    try:
        return endpoint.serve(call)
    except Exception:
        failed: Deferred[Answer] = Deferred()
        failed.errback(Failure())
        return failed
