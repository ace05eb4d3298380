"""The root resource: check a request, find its endpoint, and answer once and in time.

It bounds the requests at work, and answers each of them exactly once, whatever happens
to the work behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txraft.http.answers import (
    NOT_APPLIED,
    RETRY_AFTER,
    TEXT,
    UNKNOWN,
    Answer,
    Header,
    HTTPRefusal,
    not_applied,
    unknown,
)
from txraft.http.auth import AccessPolicy, Everybody, check_access
from txraft.http.catalog import Catalog
from txraft.http.deadlines import Deadlines
from txraft.http.expiry import Expiry
from txraft.http.inflight import HTTPCall, parse_key
from txraft.http.leading import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.metrics import Metrics
from txraft.http.origins import Origins, check_host
from txraft.http.parameters import check_parameters
from txraft.http.routes import DEREGISTER, KEYS, Route, Routes
from txraft.http.waits import Waits


class API(Resource):
    """The root resource: one leaf that serves every path.

    The site may set `may_wait`. A blocking query for which it returns False is dropped
    instead of waiting.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        table: Routes,
        leadership: Leadership,
        waits: Waits,
        expiry: Expiry,
        catalog: Catalog,
        metrics: Metrics,
        clock: IReactorTime,
        limits: HTTPLimits,
        access: AccessPolicy | None = None,
        origins: Origins | None = None,
    ) -> None:
        Resource.__init__(self)
        self._access = access or Everybody()
        self._origins = origins or Origins()
        self.routes = table
        self._leadership = leadership
        self._waits = waits
        self._expiry = expiry
        self._catalog = catalog
        self._metrics = metrics
        self._limits = limits
        self._deadlines = Deadlines(clock, limits.request_timeout, self._expired)
        self._patient = Deadlines(clock, limits.backup_timeout, self._expired)
        self._clock = clock
        self._in_flight = 0
        self.may_wait: Callable[[Request], bool] = _always

    def render(self, request: Request) -> int:
        """Answer *request*, now or later."""
        try:
            call, endpoint = self._accept(request)
            parked = self._park(call, endpoint)
        except HTTPRefusal as refusal:
            refusal.answer.write(request)
            return NOT_DONE_YET
        except Exception:
            self.log.failure("a request was not understood")
            _failed(NOT_APPLIED).write(request)
            return NOT_DONE_YET
        # After the refusals above, which finish the request at once: for those nothing
        # was begun that a lost connection could have to end.
        request.notifyFinish().addErrback(self._disconnected, call)
        if not parked:
            self._begin(call, endpoint)
        elif not self.may_wait(request):
            self._waits.drop(call)
        return NOT_DONE_YET

    def admit(self, request: Request) -> None:
        """Check the head of a request before its body comes. Raises: HTTPRefusal"""
        self._check_client(HTTPCall(request))

    def drain(self) -> None:
        """Drop blocking queries and say "stopping" at ``/readyz``; serve the rest.

        Call it again to drop the blocking queries that came later.
        """
        self._leadership.is_leaving = True
        self._waits.cut()

    def close(self) -> None:
        """Let requests at work end; none may wait for a leader any longer."""
        self._leadership.close()
        self._expiry.close()
        self._catalog.close()
        self._metrics.close()
        self._waits.close()
        self._deadlines.close()
        self._patient.close()

    def _accept(self, request: Request) -> tuple[HTTPCall, Route]:
        # The client first: a stranger learns nothing of paths, parameters or load.
        call = HTTPCall(request)
        self._check_client(call)
        if self._in_flight >= self._limits.max_requests_in_flight:
            raise not_applied("The node is busy: try again in a second.", RETRY_AFTER)
        endpoint, rest = self._find(call)
        # The name of the route and not the path: metrics have a sample for each.
        call.route = call.path if rest is None else call.path[: -len(rest) or None]
        if call.parameters:
            check_parameters(call, endpoint.parameters)
        if rest is not None:
            call.key = parse_key(rest, self._limits.max_key_bytes)
        if endpoint.is_long:
            call.upload = request.content
        elif call.method == b"PUT" and request.content is not None:
            call.body = request.content.read()
        return call, endpoint

    def _check_client(self, call: HTTPCall) -> None:
        """Check that the client may send *call*; note its role. Raises: HTTPRefusal"""
        check_host(call.request)
        self._origins.check(call.request)
        call.role = check_access(self._access, call)

    def _find(self, call: HTTPCall) -> tuple[Route, bytes | None]:
        """Return the endpoint that serves *call*, and the rest of its path."""
        # Prefixes before the table: a key may hold `/`, and may look like another path.
        path, rest = call.path, None
        for prefix in (KEYS, DEREGISTER):
            if path.startswith(prefix):
                path, rest = prefix, path[len(prefix) :]
        methods = self.routes.get(path)
        if methods is None:
            start = path.rfind(b"/") + 1
            path, rest = path[:start], path[start:]
            methods = self.routes.get(path)
        elif rest is None and path.endswith(b"/"):
            rest = b""
        if methods is None:
            raise HTTPRefusal(404, "There is nothing at this path.")
        endpoint = methods.get(call.method)
        if endpoint is None and call.method == b"OPTIONS":
            allowed = b",".join([b"OPTIONS", *methods])
            return Route(lambda _: Answer(200, b"", (b"Allow", allowed))), rest
        if endpoint is None:
            allowed = b", ".join(methods)
            sentence = f"This path takes only {allowed.decode('ascii')}."
            raise HTTPRefusal(405, sentence, (b"Allow", allowed))
        return endpoint, rest

    def _park(self, call: HTTPCall, endpoint: Route) -> bool:
        """Let a blocking query wait; return False if there is nothing to wait for."""
        # For speed: without parameters it is no blocking query, and most reads have
        # none.
        if endpoint.topic is None or not call.parameters:
            return False
        topic = endpoint.topic(call)
        return self._waits.park(call, topic, lambda: self._begin(call, endpoint))

    def _begin(self, call: HTTPCall, endpoint: Route) -> None:
        # A blocking query is woken in a later turn: its client may have gone by then.
        if call.answered:
            return
        self._in_flight += 1
        call.begun = self._clock.seconds()
        (self._patient if endpoint.is_long else self._deadlines).add(call)
        result = _serve(endpoint, call)
        # For speed: stale reads and short lists are answered without a Deferred.
        if isinstance(result, Answer):
            self._done(result, call)
        else:
            result.addErrback(self._failed, call).addCallback(self._done, call)

    def _failed(self, failure: Failure, call: HTTPCall) -> Answer:
        error = failure.value
        if isinstance(error, HTTPRefusal):
            return error.answer
        self.log.failure("a request failed", failure)
        return _failed(UNKNOWN if call.submitted else NOT_APPLIED)

    def _done(self, answer: Answer, call: HTTPCall) -> None:
        self._in_flight -= 1
        self._answer(answer, call)

    def _expired(self, call: HTTPCall) -> None:
        limits = self._limits
        is_long = call.upload is not None
        timeout = limits.backup_timeout if is_long else limits.request_timeout
        seconds = f"{timeout:g} s"
        if call.submitted:
            refusal = unknown(f"The outcome is unknown: none was reached in {seconds}.")
        else:
            refusal = not_applied(f"The request was not applied within {seconds}.")
        self._answer(refusal.answer, call)

    def _answer(self, answer: Answer, call: HTTPCall) -> None:
        # It has been told already that the time was over, or its client is gone.
        if call.answered:
            answer.discard()
        else:
            call.answered = True
            self._discard(call)
            seconds = self._clock.seconds() - call.begun
            self._metrics.served.add(call.method, call.route, answer.status, seconds)
            answer.write(call.request)

    def _disconnected(self, _failure: Failure, call: HTTPCall) -> None:
        """Note that the client has gone; work that was begun goes on without it."""
        call.answered = True
        self._waits.discard(call)
        self._discard(call)

    def _discard(self, call: HTTPCall) -> None:
        self._deadlines.discard(call)
        self._patient.discard(call)


def _always(_request: Request) -> bool:
    return True


def _failed(outcome: Header) -> Answer:
    """Make the answer to a request that met a fault of this program."""
    return Answer(500, b"The node failed to serve this; see its log.\n", TEXT, outcome)


def _serve(endpoint: Route, call: HTTPCall) -> Answer | Deferred[Answer]:
    # An error here must end as one that a Deferred brings: with `_done`, which counts
    # the request as no longer in flight.
    try:
        return endpoint.serve(call)
    except Exception:
        failed: Deferred[Answer] = Deferred()
        failed.errback(Failure())
        return failed
