"""Asking until a node takes the request, and never twice what may be applied once.

ask a node ── answered ───────────────────────────────> the answer
  ^   │
  │   ├─ not sent, or answered `not-applied` ─> wait ─┐
  │   │                                               │
  │   └─ sent and not answered:                       │
  │        may be repeated ───────────────────> wait ─┤
  │        may not ──────────> OutcomeUnknown         │
  └───────────── while time is left ──────────────────┘   else Unavailable
"""

from __future__ import annotations

from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txraft.client.errors import OutcomeUnknown, Refused, Unavailable
from txraft.client.exchange import NoAnswer, NotSent, Question, Reply, ask
from txraft.client.limits import ClientLimits
from txraft.client.nodes import Nodes

OUTCOME = "X-Txraft-Outcome"
LEADER = "X-Txraft-Leader"


class Calls:
    """Makes the calls of one client."""

    def __init__(
        self,
        http: HTTPClient,
        clock: IReactorTime,
        nodes: Nodes,
        limits: ClientLimits,
        headers: dict[str, str],
    ) -> None:
        self._http = http
        self._headers = headers
        self.clock = clock
        self.nodes = nodes
        self.limits = limits

    async def make(self, question: Question) -> Reply:
        """Ask until there is an answer of a status below 500.

        Raises: Unavailable, OutcomeUnknown; the latter never if it is repeatable.
        """
        until = self.clock.seconds() + (question.patience or self.limits.timeout)
        pause, attempts = self.limits.retry_interval, 0
        while True:
            left = max(0.001, until - self.clock.seconds())
            reply, reason = await self._attempt(question, left)
            if reply is not None:
                return reply
            attempts += 1
            if attempts % len(self.nodes.urls) == 0:
                if until - self.clock.seconds() <= pause:
                    raise Unavailable(f"nothing was changed: {reason}")
                await deferLater(self.clock, pause)
                pause = min(2 * pause, self.limits.max_retry_interval)
            elif self.clock.seconds() >= until:
                raise Unavailable(f"nothing was changed: {reason}")

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
        return await ask(
            self._http,
            self.clock,
            url,
            question,
            self._headers,
            seconds,
            self.limits.max_answer_bytes,
        )

    async def _attempt(
        self, question: Question, left: float
    ) -> tuple[Reply | None, str]:
        if question.repeatable and question.patience is None:
            left = min(left, self.limits.read_timeout)
        url = self.nodes.choose()
        try:
            reply = await self._ask(url, question, left)
        except NotSent as error:
            self.nodes.failed(url)
            return None, str(error)
        except NoAnswer as error:
            self.nodes.failed(url)
            if not question.repeatable:
                raise OutcomeUnknown(f"the outcome is unknown: {error}") from error
            return None, str(error)
        leader = reply.header(LEADER)
        if leader is not None:
            self.nodes.led_by(leader)
        if reply.status < 500:
            return reply, ""
        self.nodes.failed(url)
        if reply.header(OUTCOME) != "not-applied" and not question.repeatable:
            raise OutcomeUnknown(f"{url}: {reply.sentence}")
        return None, f"{url}: {reply.sentence}"
