"""Writes: commands that are committed where the leader is."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from txraft.http.answers import Answer
from txraft.http.calls import Call
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.node.pending import ApplyResult


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
        answer: Callable[[ApplyResult], Answer],
    ) -> Deferred[Answer]:
        """Commit what *command* encodes, on the leader; *answer* tells its result."""

        def commit(call: Call) -> Deferred[Answer]:
            call.submitted = True
            applied = self._raft.apply(
                call.command(command()), timeout=self._limits.leader_wait
            )
            return applied.addCallback(answer)

        return self._leadership.run(call, commit)
