"""Asking until a node takes the request, and never twice what may be applied once.

ask a node ── answered ───────────────────────────────> the answer
  ^   │
  │   ├─ not sent, or answered `not-applied` ─> wait ─┐
  │   │                                               │
  │   └─ sent and not answered:                       │
  │        may be repeated ───────────────────> wait ─┤
  │        may not ──────────> OutcomeUnknown         │
  └───────────── while time is left ──────────────────┘   else Unavailable

A node that knows no leader waits for one before it says that a write was not applied.
It is told to wait for less than the attempt may take: who hangs up on it knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers

from txraft.client.errors import ClientError, OutcomeUnknown, Refused, Unavailable
from txraft.client.exchange import NoAnswer, NotSent, Question, Reply, ask
from txraft.client.limits import ClientLimits
from txraft.client.nodes import Nodes

INSUFFICIENT_STORAGE = 507
OUTCOME = "X-Txraft-Outcome"
LEADER = "X-Txraft-Leader"
CLIENT = "X-Txraft-Client"
SEQUENCE = "X-Txraft-Sequence"
WAIT = "X-Txraft-Wait"

MAX_MARGIN = 3.0
"""Seconds in which a node that has waited for a leader in vain gets to say so.

It may be about to open a connection to a leader that is gone.
"""
SHORTEST = 1.0
"""Seconds that must be left for another attempt at a write."""


class Calls:
    """Makes the calls of one client.

    With a *name* its writes are numbered under it, so that the cluster does each once
    however often it is sent.
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

    async def make(self, question: Question) -> Reply:
        """Ask until there is an answer that stands: repeated, it would be the same.

        That is one of a status below 500, of a quota, or of the outcome `refused`.

        Raises: Unavailable when the request certainly has no effect, OutcomeUnknown
            when that cannot be told.
        """
        if self._name is not None and question.writes and not question.repeatable:
            self._sequence += 1
            numbered = {CLIENT: self._name, SEQUENCE: str(self._sequence)}
            question = replace(question, repeatable=True, headers=numbered)
        timeout = question.timeout or self.limits.timeout
        until = self.clock.seconds() + timeout
        shortest = min(SHORTEST, timeout / 4) if question.writes else 0.0
        pause, attempts = self.limits.retry_interval, 0
        unknown: str | None = None
        while True:
            left = max(0.001, until - self.clock.seconds())
            attempt = await self._attempt(question, left)
            if attempt.reply is not None:
                was_sent = unknown is not None
                return _certain(attempt.reply, was_sent, bool(question.headers))
            if attempt.sent and unknown is None:
                unknown = attempt.reason
            attempts += 1
            is_round = attempts % len(self.nodes.urls) == 0
            left = until - self.clock.seconds()
            if left <= (pause if is_round else 0.0) + shortest:
                # Of several reasons that which left the outcome open explains it.
                raise _gave_up(unknown or attempt.reason, unknown is not None)
            if is_round:
                await deferLater(self.clock, pause)
                pause = min(2 * pause, self.limits.max_retry_interval)

    async def expect(self, question: Question, *statuses: int) -> Reply:
        """Make a call whose answer has status 200, or one of *statuses*.

        Raises: Refused for any other; and as `make`.
        """
        reply = await self.make(question)
        if reply.status != 200 and reply.status not in statuses:
            raise Refused(reply.status, reply.sentence)
        return reply

    async def ask_once(self, url: str, question: Question) -> Reply:
        """Ask the node at *url* itself, once.

        Raises: NotSent, NoAnswer
        """
        seconds = question.patience or self.limits.read_timeout
        return await self._ask(url, question, seconds)

    async def _ask(self, url: str, question: Question, seconds: float) -> Reply:
        headers = {**self._headers, **question.headers}
        return await ask(
            self._http,
            self.clock,
            url,
            question,
            Headers({name: [value] for name, value in headers.items()}),
            seconds,
            self.limits.max_answer_bytes,
        )

    async def _attempt(self, question: Question, left: float) -> _Attempt:
        if question.patience is not None:
            left = question.patience
        elif question.repeatable:
            left = min(left, self.limits.read_timeout)
        if question.writes:
            wait = left - min(left / 2, MAX_MARGIN)
            headers = {**question.headers, WAIT: f"{wait * 1000:.0f}ms"}
            question = replace(question, headers=headers)
        url = self.nodes.choose()
        try:
            reply = await self._ask(url, question, left)
        except NotSent as error:
            self.nodes.failed(url)
            return _Attempt(str(error))
        except NoAnswer as error:
            self.nodes.failed(url)
            return _unanswered(question, str(error))
        leader = reply.header(LEADER)
        if leader is not None:
            self.nodes.led_by(leader)
        outcome = reply.header(OUTCOME)
        is_final = reply.status < 500 or reply.status == INSUFFICIENT_STORAGE
        if is_final or outcome == "refused":
            return _Attempt("", reply=reply)
        self.nodes.failed(url)
        reason = f"{url}: {reply.sentence}"
        if outcome == "not-applied":
            return _Attempt(reason)
        return _unanswered(question, reason)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How one attempt ended; *sent*: without an answer that tells its fate."""

    reason: str
    sent: bool = False
    reply: Reply | None = None


def _unanswered(question: Question, reason: str) -> _Attempt:
    if not question.repeatable:
        raise _gave_up(reason, question.writes)
    return _Attempt(reason, question.writes)


def _gave_up(reason: str, sent: bool) -> ClientError:
    if sent:
        return OutcomeUnknown(f"the outcome is unknown: {reason}")
    return Unavailable(f"nothing was changed: {reason}")


def _certain(reply: Reply, was_sent: bool, is_numbered: bool) -> Reply:
    """Take *reply* for the answer, unless the first request may have had another.

    It may have been forgotten since, or be on its way yet where a quota refuses more.
    """
    if was_sent and (
        reply.status == INSUFFICIENT_STORAGE or (is_numbered and reply.status == 400)
    ):
        raise _gave_up(reply.sentence, sent=True)
    return reply
