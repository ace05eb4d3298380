"""Send a request to one node after another, without ever applying a write twice.

ask a node ── answered ───────────────────────────────> the answer
  ^   │
  │   ├─ not sent, or answered `not-applied` ─> wait ─┐
  │   │                                               │
  │   └─ sent and not answered:                       │
  │        may be repeated ───────────────────> wait ─┤
  │        may not ──────────> OutcomeUnknown         │
  └───────────── while time is left ──────────────────┘   else Unavailable

A node that knows no leader waits for one before it says that a write was not applied.
The client tells it to wait for less time than the attempt has: a client that hangs up
first never learns the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers

from txraft.client.errors import ClientError, OutcomeUnknown, Refused, Unavailable
from txraft.client.exchange import NoAnswer, NodeRequest, NodeResponse, NotSent, ask
from txraft.client.limits import ClientLimits
from txraft.client.nodes import Nodes

INSUFFICIENT_STORAGE = 507
OUTCOME = "X-Txraft-Outcome"
LEADER = "X-Txraft-Leader"
CLIENT = "X-Txraft-Client"
SEQUENCE = "X-Txraft-Sequence"
WAIT = "X-Txraft-Wait"

MAX_MARGIN = 3.0
"""Seconds left to a node, after it waited for a leader in vain, to answer so.

It may be opening a connection to a leader that is gone.
"""
SHORTEST = 1.0
"""The fewest seconds that must be left for another attempt at a write."""


class ClientCalls:
    """Makes the calls of one client: each is one or several attempts.

    With a *name*, writes carry that name and a number, so that the cluster applies each
    once however often it is sent.
    """

    def __init__(
        self,
        http: HTTPClient,
        clock: IReactorTime,
        nodes: Nodes,
        limits: ClientLimits,
        headers: dict[str, str],
        name: str | None = None,
    ) -> None:
        self._http = http
        self._headers = headers
        self._name = name
        self._sequence = 0
        self.clock = clock
        self.nodes = nodes
        self.limits = limits

    async def make(self, request: NodeRequest) -> NodeResponse:
        """Send *request* until an answer is final: another attempt would not change it.

        Final are a status below 500, a used-up quota, and the outcome `refused`.

        Raises: Unavailable when the request certainly has no effect, OutcomeUnknown
            when that cannot be told.
        """
        if self._name is not None and request.writes and not request.repeatable:
            # One number for all attempts: it is what makes a second one harmless.
            self._sequence += 1
            numbered = {CLIENT: self._name, SEQUENCE: str(self._sequence)}
            request = replace(request, repeatable=True, headers=numbered)
        timeout = request.timeout or self.limits.timeout
        until = self.clock.seconds() + timeout
        shortest = min(SHORTEST, timeout / 4) if request.writes else 0.0
        pause, attempts = self.limits.retry_interval, 0
        unknown: str | None = None
        while True:
            # Never 0: a call with a tiny timeout still makes its first attempt.
            left = max(0.001, until - self.clock.seconds())
            attempt = await self._attempt(request, left)
            if attempt.response is not None:
                was_sent = unknown is not None
                return _certain(attempt.response, was_sent, bool(request.headers))
            # Kept for the whole call: no later refusal of a connection can tell what
            # became of the request that was sent.
            if attempt.sent and unknown is None:
                unknown = attempt.reason
            attempts += 1
            is_round = attempts % len(self.nodes.urls) == 0
            left = until - self.clock.seconds()
            if left <= (pause if is_round else 0.0) + shortest:
                # The reason that left the outcome open goes before all later ones.
                raise _gave_up(unknown or attempt.reason, unknown is not None)
            if is_round:
                await deferLater(self.clock, pause)
                pause = min(2 * pause, self.limits.max_retry_interval)

    async def expect(self, request: NodeRequest, *statuses: int) -> NodeResponse:
        """Make a call that must be answered with status 200 or one of *statuses*.

        Raises: Refused for any other status; and as `make`.
        """
        response = await self.make(request)
        if response.status != 200 and response.status not in statuses:
            raise Refused(response.status, response.sentence)
        return response

    async def ask_once(self, url: str, request: NodeRequest) -> NodeResponse:
        """Send *request* once, to the node at *url* and no other.

        Raises: NotSent, NoAnswer
        """
        seconds = request.patience or self.limits.read_timeout
        return await self._ask(url, request, seconds)

    async def _ask(
        self, url: str, request: NodeRequest, seconds: float
    ) -> NodeResponse:
        headers = {**self._headers, **request.headers}
        return await ask(
            http=self._http,
            clock=self.clock,
            url=url,
            request=request,
            headers=Headers({name: [value] for name, value in headers.items()}),
            seconds=seconds,
            max_bytes=self.limits.max_answer_bytes,
        )

    async def _attempt(self, request: NodeRequest, left: float) -> _AttemptEnd:
        if request.patience is not None:
            left = request.patience
        elif request.repeatable:
            left = min(left, self.limits.read_timeout)
        if request.writes:
            # A read needs no header: to give it up and repeat it costs nothing.
            wait = left - min(left / 2, MAX_MARGIN)
            headers = {**request.headers, WAIT: f"{wait * 1000:.0f}ms"}
            request = replace(request, headers=headers)
        url = self.nodes.choose()
        try:
            response = await self._ask(url, request, left)
        except NotSent as error:
            self.nodes.failed(url)
            return _AttemptEnd(str(error))
        except NoAnswer as error:
            self.nodes.failed(url)
            return _unanswered(request, str(error))
        # Before the outcome is looked at: an answer that refuses names the leader, too,
        # and the next attempt goes there.
        leader = response.header(LEADER)
        if leader is not None:
            self.nodes.led_by(leader)
        outcome = response.header(OUTCOME)
        is_final = response.status < 500 or response.status == INSUFFICIENT_STORAGE
        if is_final or outcome == "refused":
            return _AttemptEnd("", response=response)
        self.nodes.failed(url)
        reason = f"{url}: {response.sentence}"
        if outcome == "not-applied":
            return _AttemptEnd(reason)
        return _unanswered(request, reason)


@dataclass(frozen=True, slots=True)
class _AttemptEnd:
    """The end of one attempt; *sent* is True if its outcome stays unknown."""

    reason: str
    sent: bool = False
    response: NodeResponse | None = None


def _unanswered(request: NodeRequest, reason: str) -> _AttemptEnd:
    if not request.repeatable:
        raise _gave_up(reason, request.writes)
    return _AttemptEnd(reason, request.writes)


def _gave_up(reason: str, sent: bool) -> ClientError:
    if sent:
        return OutcomeUnknown(f"the outcome is unknown: {reason}")
    return Unavailable(f"nothing was changed: {reason}")


def _certain(response: NodeResponse, was_sent: bool, is_numbered: bool) -> NodeResponse:
    """Return *response*, unless an earlier attempt may have had another outcome.

    The cluster may have forgotten the number of the earlier attempt, which it says with
    status 400. Where a quota refuses this attempt, the earlier one may still arrive.
    Raises: OutcomeUnknown
    """
    if was_sent and (
        response.status == INSUFFICIENT_STORAGE
        or (is_numbered and response.status == 400)
    ):
        raise _gave_up(response.sentence, sent=True)
    return response
