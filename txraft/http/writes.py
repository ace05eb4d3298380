"""Writes: make a command for a call, and commit it at the leader within the quotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from txraft.http.answers import Answer, HTTPRefusal
from txraft.http.backend import RaftNode
from txraft.http.inflight import HTTPCall
from txraft.http.leading import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.quotas import Growth, Quotas
from txraft.kv.state import KeyValueFSM
from txraft.node.events import RaftState
from txraft.node.pending import ApplyResult

T = TypeVar("T")
E = TypeVar("E")


Encode = Callable[[int], bytes]
"""Makes a command by the rules of a level: the one active where it is proposed."""


class Writes:
    """Commits the commands of calls, within the quotas of this node."""

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        leadership: Leadership,
        quotas: Quotas,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._quotas = quotas
        self._leadership = leadership
        self._limits = limits

    def run(
        self,
        call: HTTPCall,
        encode: Encode,
        kind: type[T],
        answer: Callable[[T], Answer | Deferred[Answer]],
        growth: Callable[[Quotas], Growth] | None = None,
    ) -> Deferred[Answer]:
        """Commit the command that *encode* makes, at the leader.

        *answer* turns its result, of type *kind*, into an answer. The leader judges its
        quotas by *growth*; without *growth* the command always passes.
        """

        def told(result: ApplyResult) -> Answer | Deferred[Answer]:
            # At level 0 a repetition under client and sequence gets the first result,
            # whatever command that was of.
            if not isinstance(result.response, kind):
                raise HTTPRefusal(
                    409, "The client has used this sequence for another write."
                )
            return answer(result.response)

        def commit(call: HTTPCall) -> Deferred[Answer]:
            if self._raft.state is not RaftState.LEADER:
                # It fails with the reason, and the call is forwarded. The real command
                # is not made: this node may not know the level that the leader has.
                return self._raft.apply(b"").addCallback(told)
            # The level of the applied state: its activation is in the log already, so
            # no command of this level can come before it.
            level = self._fsm.active_level
            command = call.command(encode(level), level)
            added = self._begin(call, growth)
            call.submitted = True
            applied = self._raft.apply(command, timeout=self._limits.leader_wait)
            if added is not None:
                applied.addBoth(self._ended, added)
            return applied.addCallback(told)

        return self._leadership.run(call, commit)

    def _begin(
        self, call: HTTPCall, growth: Callable[[Quotas], Growth] | None
    ) -> Growth | None:
        """Count the growth by *call* as under way. Raises: HTTPRefusal, over a quota"""
        if growth is None:
            return None
        if call.once is not None and self._fsm.has_done(*call.once):
            # A repetition adds nothing, and must get its answer in a full store, too.
            return None
        added = growth(self._quotas)
        self._quotas.begin(added)
        return added

    def _ended(self, result: E, added: Growth) -> E:
        self._quotas.end(added)
        return result
