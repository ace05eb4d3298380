"""Writes: commands that are committed where the leader is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from txraft.http.answers import Answer, Refusal
from txraft.http.calls import Call
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.node.pending import ApplyResult

T = TypeVar("T")


class Writes:
    """Commits the commands that calls stand for."""

    def __init__(self, raft: Node, leadership: Leadership, limits: HTTPLimits) -> None:
        self._raft = raft
        self._leadership = leadership
        self._limits = limits

    def run(
        self,
        call: Call,
        command: Callable[[], bytes],
        kind: type[T],
        answer: Callable[[T], Answer],
    ) -> Deferred[Answer]:
        """Commit what *command* encodes, on the leader.

        Its result is of the type *kind*, and *answer* tells it. One of another type is
        the first result of another write under the same client and sequence.
        """

        def told(result: ApplyResult) -> Answer:
            if not isinstance(result.response, kind):
                raise Refusal(
                    400, "The client has used this sequence for another write."
                )
            return answer(result.response)

        def commit(call: Call) -> Deferred[Answer]:
            call.submitted = True
            applied = self._raft.apply(
                call.command(command()), timeout=self._limits.leader_wait
            )
            return applied.addCallback(told)

        return self._leadership.run(call, commit)
