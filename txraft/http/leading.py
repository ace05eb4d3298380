"""Serve a request at the leader: here, or one hop away.

A node that does not lead forwards the request to the leader that it knows. While it
knows none the request waits, since elections are short; in the end it is refused as not
applied. A request that was forwarded once is served here or refused, never forwarded
again: two nodes that each take the other for the leader would pass it in a circle.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txraft.errors import LeadershipLost, NotLeader, RaftError, TransferInProgress
from txraft.http.answers import Answer, HTTPRefusal, not_applied, refusal_of
from txraft.http.backend import RaftNode
from txraft.http.forward import Forwarder, NotDelivered
from txraft.http.inflight import WAIT, HTTPCall, parse_duration
from txraft.http.limits import HTTPLimits
from txraft.kv.state import KeyValueFSM
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState

Serve = Callable[[HTTPCall], Deferred[Answer]]


class Leadership:
    """Finds the leader for each call, within `HTTPLimits.leader_wait` seconds.

    A client with less time says so in `X-Txraft-Wait`. It then gets the answer that its
    request was not applied, where it would have hung up and never known.
    """

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        forwarder: Forwarder,
        clock: IReactorTime,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._forwarder = forwarder
        self._clock = clock
        self._limits = limits
        self._waiting: dict[Deferred[None], IDelayedCall] = {}
        self._closed = False
        self.is_leaving = False
        """Whether this node is about to stop and wants no more requests."""
        self._observer = Observer(self._wake, _is_news)
        raft.register_observer(self._observer)
        fsm.on_advertise = self._wake

    def run(self, call: HTTPCall, serve: Serve) -> Deferred[Answer]:
        """Run *serve* for *call* on the leader, here or at another node.

        Returns: a Deferred of the answer; it fails with HTTPRefusal
        """
        # Tried here first, without a look at the role: only Raft itself knows for sure.
        return serve(call).addErrback(self._not_here, call, serve)

    def close(self) -> None:
        """Refuse all calls that wait for a leader."""
        self._closed = True
        self._raft.deregister_observer(self._observer)
        self._wake()

    def _not_here(
        self, failure: Failure, call: HTTPCall, serve: Serve
    ) -> Deferred[Answer]:
        error = failure.value
        if not isinstance(error, RaftError):
            failure.raiseException()
        reason = _why_elsewhere(error, call)
        if call.forwarded:
            raise _untaken(reason)
        return Deferred.fromCoroutine(self._find_leader(call, serve, reason))

    async def _find_leader(self, call: HTTPCall, serve: Serve, reason: str) -> Answer:
        wait_until = self._clock.seconds() + self._patience(call)
        while not self._closed and not call.answered:
            # Nothing may lie between the check of `answered` and the attempt: a client
            # that was told `not-applied` meanwhile must not see its write applied.
            try:
                return await self._serve_or_forward(call, serve)
            except NotDelivered as error:
                reason = str(error)
            left = wait_until - self._clock.seconds()
            if left <= 0:
                break
            await self._change(min(left, self._limits.retry_interval))
        raise _untaken(reason)

    async def _serve_or_forward(self, call: HTTPCall, serve: Serve) -> Answer:
        if self._raft.state is RaftState.LEADER:
            try:
                return await serve(call)
            except RaftError as error:
                raise NotDelivered(_why_elsewhere(error, call)) from error
        leader = self._raft.leader
        if leader is None:
            raise NotDelivered("no leader is known")
        url = self._fsm.http_url(leader)
        if url is None:
            raise NotDelivered(f"the leader {leader} has not told its HTTP address")
        if call.request.isSecure() and not url.startswith("https:"):
            # A token that a client sent over TLS must not go on in plain text.
            raise NotDelivered(f"the leader {leader} is known without TLS only")
        return await self._forwarder.forward(call, url)

    def _patience(self, call: HTTPCall) -> float:
        """Return the seconds that *call* may wait for a leader."""
        told = call.request.getHeader(WAIT)
        asked = None if told is None else parse_duration(told)
        longest = self._limits.leader_wait
        return longest if asked is None else min(asked, longest)

    def _change(self, seconds: float) -> Deferred[None]:
        """Wait for a change of leader or role, at most *seconds*."""
        waiter: Deferred[None] = Deferred()
        self._waiting[waiter] = self._clock.callLater(seconds, self._end, waiter)
        return waiter

    def _end(self, waiter: Deferred[None]) -> None:
        del self._waiting[waiter]
        waiter.callback(None)

    def _wake(self, observation: Observation | None = None) -> None:
        # Taken out first: a waiter that is woken may wait again, for the next change.
        waiting, self._waiting = self._waiting, {}
        for timer in waiting.values():
            timer.cancel()
        for waiter in waiting:
            waiter.callback(None)


def _untaken(reason: str) -> HTTPRefusal:
    """Make the refusal of a request that no leader took, in Consul's words."""
    return not_applied(
        f"No cluster leader took the request, so it was not applied: {reason}."
    )


def _is_news(observation: Observation) -> bool:
    return isinstance(observation.data, LeaderObservation | RaftState)


def _why_elsewhere(error: RaftError, call: HTTPCall) -> str:
    """Return the reason to serve *call* at another node.

    Raises: HTTPRefusal if it must not be served again, because its outcome is decided
        or unknown
    """
    if error.outcome == "not-applied":
        call.submitted = False
    if isinstance(error, NotLeader | TransferInProgress):
        return str(error)
    # A write that was appended before leadership was lost may still be committed.
    if isinstance(error, LeadershipLost) and not call.writes:
        return str(error)
    raise refusal_of(error)
