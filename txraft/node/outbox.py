"""The outbox: turn what consensus sends into calls of the transport.

Each request that leaves comes back to the `Inbox` exactly once: as a response, as lost,
or as unsupported. Consensus counts on that. Its window to a follower, at most
`max_inflight_requests`, is also what bounds all that waits here: nothing is queued for
a peer beyond what the window has let out.

Entries go over a pipeline, one for each peer, in order. Heartbeats and votes are single
calls beside it, so that a large request does not delay them. Nothing here decides
anything about consensus.

Source: hashicorp/raft `replication.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, assert_never

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.entry import Entry
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    RequestPreVoteRequest,
    RequestVoteRequest,
    Response,
    TimeoutNowRequest,
)
from txraft.core.ready import Heartbeat, OutgoingRequest, Replicate, SendSnapshot
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ContractBroken,
    PipelineReplicationNotSupported,
    RaftError,
    RemoteError,
)
from txraft.interfaces import AppendPipeline, Transport
from txraft.node.application import answer_of

UNEXPECTED_COMMAND = "unexpected command"
"""What a peer answers to a request that it knows but does not serve."""

MAX_REFUSAL_TEXT = 300
"""Characters of a peer's error text that are logged."""


class Inbox(Protocol):
    """Where the fate of each request is reported, exactly once."""

    def answered(self, peer: str, request: OutgoingRequest, answer: Response) -> None:
        """Report an answer."""

    def lost(self, peer: str, request: OutgoingRequest, closed: bool) -> None:
        """Report that no answer comes; *closed*: the peer hung up on it, or did not
        take entries in time."""

    def unsupported(self, peer: str, request: OutgoingRequest) -> None:
        """Report that the peer does not know this kind of request."""

    def leads(self, term: int) -> bool:
        """Tell whether this server leads *term*, still."""

    def stop_because(self, reason: str, failure: Failure) -> None:
        """Stop the node: it cannot go on."""


@dataclass(slots=True)
class _Pipeline:
    """The pipeline to one peer: being opened, or open."""

    opening: Deferred[AppendPipeline] | None = None
    open: AppendPipeline | None = None
    supported: bool = True
    waiting: list[tuple[Replicate, AppendEntriesRequest]] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    """A single call that must be answered within a number of ticks.

    *request* is None for a question that consensus did not ask.
    """

    peer: str
    request: OutgoingRequest | None
    deferred: Deferred[Any]
    deadline: int


class Outbox:
    """Sends requests of the server at *address*.

    *fetch* returns the entries from *first* to at most *last*. *patience_ticks*
    bounds the wait for the answer to a heartbeat or a request for a vote: later,
    it proves nothing any more. *own_id* tells the id that the membership has for this
    server, by which peers find a pre-candidate.
    """

    log = Logger()

    def __init__(
        self,
        address: str,
        transport: Transport,
        *,
        inbox: Inbox,
        fetch: Callable[[int, int], list[Entry] | Deferred[list[Entry]]],
        send_snapshot: Callable[[str, SendSnapshot], None],
        patience_ticks: int,
        header: Header,
        own_id: Callable[[], str],
    ) -> None:
        self._address = address
        self._transport = transport
        self._inbox = inbox
        self._fetch = fetch
        self._send_snapshot = send_snapshot
        self._patience_ticks = patience_ticks
        self._pipelines: dict[str, _Pipeline] = {}
        # What has to wait, in order, while older entries for that peer are read.
        self._reading: dict[str, list[Replicate]] = {}
        self._calls: list[_Call] = []
        # What each peer has refused with, to log it once and not each time.
        self._refusals: dict[str, str] = {}
        self._now = 0
        self._stopped = False
        # The last request and the key of what it holds: see `_request_of`.
        self._last: tuple[object, AppendEntriesRequest] | None = None
        self._own_id = own_id
        self.header = header
        self.known_incarnations: bytes | None = None

    def send(self, peer: str, message: OutgoingRequest) -> None:
        """Send *message* to *peer*."""
        match message:
            case Heartbeat():
                wire = AppendEntriesRequest(
                    message.term, self._address, header=self._heartbeat_header
                )
                self._call(
                    peer, message, answer_of(self._transport.append_entries, peer, wire)
                )
            case Replicate():
                self._replicate(peer, message)
            case SendSnapshot():
                self._send_snapshot(peer, message)
            case RequestVoteRequest():
                vote = RequestVoteRequest(
                    message.term,
                    message.candidate,
                    message.last_log_index,
                    message.last_log_term,
                    message.leadership_transfer,
                    self.header,
                )
                self._call(
                    peer, message, answer_of(self._transport.request_vote, peer, vote)
                )
            case RequestPreVoteRequest():
                self._request_pre_vote(peer, message)
            case TimeoutNowRequest():
                now = TimeoutNowRequest(self.header, message.transfer)
                self._call(
                    peer, message, answer_of(self._transport.timeout_now, peer, now)
                )
            case _:
                assert_never(message)

    @property
    def _heartbeat_header(self) -> Header:
        """The header, with what a leader tells its followers beside."""
        if self.header.incarnation is None:
            return self.header
        return replace(self.header, known=self.known_incarnations)

    def tick(self, count: int) -> None:
        """Give up calls that were not answered in time.

        Deadlines in ticks, looked at here: a timer for each call would be a `callLater`
        and a cancel for each message.
        """
        self._now += count
        late = [call for call in self._calls if call.deadline <= self._now]
        for call in late:
            call.deferred.cancel()
            # A peer that does not answer heartbeats will not answer entries either:
            # what is in flight comes back now, and is sent again from where it stands.
            if isinstance(call.request, Heartbeat):
                self._drop_pipeline(call.peer)

    def forget_all_but(self, peers: Container[str]) -> None:
        """Keep nothing for those that are not among *peers*: they were removed."""
        for peer in [peer for peer in self._pipelines if peer not in peers]:
            self._drop_pipeline(peer)
        for peer in [peer for peer in self._refusals if peer not in peers]:
            del self._refusals[peer]

    def stop(self) -> None:
        """Close every pipeline and report nothing more."""
        self._stopped = True
        for peer in list(self._pipelines):
            self._drop_pipeline(peer)
        for call in list(self._calls):
            call.deferred.cancel()

    # Single calls

    def probe(self, peer: str) -> Deferred[AppendEntriesResponse]:
        """Ask who is at *peer*, which may be no member.

        The request is AppendEntries of term 0, which nobody takes for a leader's: any
        server refuses it, and its answer has the header. A server that is in no cluster
        yet, and older than this question or of Go, takes this one for its leader until
        its next timeout; it is about to be.
        Returns: a Deferred of the answer. It fails with a TransportError.
        """
        header = Header(self.header.protocol_version)
        question = AppendEntriesRequest(0, self._address, header=header)
        asked = self._transport.append_entries(peer, question)
        call = _Call(peer, None, asked, self._now + self._patience_ticks)
        self._calls.append(call)
        return asked.addBoth(self._probed, call)

    def _probed(
        self, answer: AppendEntriesResponse | Failure, call: _Call
    ) -> AppendEntriesResponse:
        if call in self._calls:
            self._calls.remove(call)
        if isinstance(answer, Failure):
            if answer.check(CancelledError):
                raise CallTimedOut(f"{call.peer} did not answer in time")
            raise answer.value  # type: ignore[misc]  # a Failure holds an exception
        return answer

    def ask_level(self, peer: str) -> Deferred[int | None]:
        """Ask *peer*, which may be no member, up to which level it understands.

        Returns: a Deferred that fires with the level, None without an answer in time.
        """
        return self.probe(peer).addCallbacks(
            lambda answer: answer.header.level or 0, lambda _: None
        )

    def _request_pre_vote(self, peer: str, message: RequestPreVoteRequest) -> None:
        header = Header(
            self.header.protocol_version,
            id=self._own_id(),
            address=self._address,
            cluster=self.header.cluster,
            incarnation=self.header.incarnation,
        )
        wire = RequestPreVoteRequest(
            message.term,
            message.candidate,
            message.last_log_index,
            message.last_log_term,
            header,
            message.transfer,
        )
        self._call(
            peer, message, answer_of(self._transport.request_pre_vote, peer, wire)
        )

    def _call(
        self, peer: str, request: OutgoingRequest, deferred: Deferred[Any]
    ) -> None:
        # Noted before the callbacks: the answer may be there already.
        call = _Call(peer, request, deferred, self._now + self._patience_ticks)
        self._calls.append(call)
        deferred.addCallbacks(
            self._answered,
            self._not_answered,
            callbackArgs=(call,),
            errbackArgs=(call,),
        )

    def _answered(self, answer: Response, call: _Call) -> None:
        self._calls.remove(call)
        self._refusals.pop(call.peer, None)
        if not self._stopped and call.request is not None:
            self._inbox.answered(call.peer, call.request, answer)

    def _not_answered(self, failure: Failure, call: _Call) -> None:
        if call in self._calls:
            self._calls.remove(call)
        if call.request is not None:
            self._report(failure, call.peer, call.request)

    def _report(self, failure: Failure, peer: str, request: OutgoingRequest) -> None:
        if self._stopped:
            return
        # A broken contract is a fault of the transport and not of the way to a peer: it
        # is logged with its traceback, and the request is lost all the same.
        is_known = failure.check(RaftError, CancelledError)
        if not is_known or failure.check(ContractBroken):
            self._broke(failure, peer)
        refused = failure.check(RemoteError) is not None
        if refused and UNEXPECTED_COMMAND in str(failure.value):
            # A pre-vote, or a transfer, at a server that is too old for it: consensus
            # goes another way, instead of trying again.
            self._inbox.unsupported(peer, request)
            return
        if refused:
            self._tell_refusal(peer, str(failure.value)[:MAX_REFUSAL_TEXT])
        closed = failure.check(ConnectionClosedByPeer) is not None
        if isinstance(request, Replicate):
            # As good as hung up on: what is so large that it takes too long is not
            # to be sent again unchanged either.
            closed = closed or failure.check(CallTimedOut) is not None
        self._inbox.lost(peer, request, closed)

    def _broke(self, failure: Failure, peer: str) -> None:
        """Tell of an error that no transport should give, once each time.

        A future of asyncio that was cancelled fails with what is no Exception; that is
        no more than a call which was given up.
        """
        if not failure.check(Exception, asyncio.CancelledError):
            self._inbox.stop_because(f"the transport to {peer} ended it", failure)
        elif self._refusals.get(peer) != str(failure.value):
            self._refusals[peer] = str(failure.value)
            self.log.failure("a call to {peer} broke", failure=failure, peer=peer)

    def _tell_refusal(self, peer: str, reason: str) -> None:
        """Log what a peer answers instead of serving a request, once each time."""
        if self._refusals.get(peer) != reason:
            self._refusals[peer] = reason
            self.log.warn(
                "{peer} refuses requests of {node}: {reason!r}",
                peer=peer,
                node=self._address,
                reason=reason,
            )

    # Entries

    def _replicate(self, peer: str, message: Replicate) -> None:
        """Send entries, but behind those for the same peer that are being read."""
        if peer in self._reading:
            # Order: a follower that gets entries behind a gap refuses them.
            self._reading[peer].append(message)
            return
        if message.last == message.prev_index:  # no entries, only a commit index
            self._entries_fetched([], peer, message)
            return
        entries = self._fetch(message.prev_index + 1, message.last)
        if isinstance(entries, list):
            self._entries_fetched(entries, peer, message)
        else:
            self._reading[peer] = []
            entries.addCallbacks(
                self._entries_read,
                self._report,
                callbackArgs=(peer, message),
                errbackArgs=(peer, message),
            ).addBoth(self._read_ended, peer)

    def _entries_read(
        self, entries: list[Entry], peer: str, message: Replicate
    ) -> None:
        """Go on after a while, in which the log may have become another leader's."""
        if not self._stopped and self._inbox.leads(message.term):
            self._entries_fetched(entries, peer, message)

    def _read_ended(self, outcome: object, peer: str) -> object:
        """Go on with what had to wait behind it."""
        for message in self._reading.pop(peer):
            if not self._stopped and self._inbox.leads(message.term):
                self._replicate(peer, message)
        return outcome

    def _entries_fetched(
        self, entries: list[Entry], peer: str, message: Replicate
    ) -> None:
        # One read brings what fits into a message. Consensus is told by the response
        # how far the follower got, and sends the rest.
        if len(entries) < message.last - message.prev_index:
            message = _shortened(message, len(entries))
        wire = self._request_of(message, entries)
        pipeline = self._pipelines.get(peer)
        if pipeline is None:
            self._open_pipeline(peer, _Pipeline(waiting=[(message, wire)]))
        elif pipeline.open is not None:
            self._append(pipeline.open, peer, message, wire)
        elif not pipeline.supported:
            self._call(
                peer, message, answer_of(self._transport.append_entries, peer, wire)
            )
        else:
            pipeline.waiting.append((message, wire))

    def _request_of(
        self, message: Replicate, entries: list[Entry]
    ) -> AppendEntriesRequest:
        """Make the request, or return the last one if another peer got the same.

        Followers that are in step get one object, which the transport then encodes once
        for all of them. The key names all that it depends on; not the entries, as the
        log of a leader changes at its end only.
        """
        commit = message.commit
        key = (message.term, message.prev_index, message.last, commit, self.header)
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        request = AppendEntriesRequest(
            message.term,
            self._address,
            message.prev_index,
            message.prev_term,
            entries,
            commit,
            header=self.header,
        )
        self._last = (key, request)
        return request

    def _append(
        self,
        pipeline: AppendPipeline,
        peer: str,
        message: Replicate,
        wire: AppendEntriesRequest,
    ) -> None:
        answer_of(pipeline.append_entries, wire).addCallbacks(
            self._entries_answered,
            self._entries_not_answered,
            callbackArgs=(peer, message),
            errbackArgs=(peer, message, pipeline),
        )

    def _entries_answered(
        self, answer: Response, peer: str, message: Replicate
    ) -> None:
        if not self._stopped:
            self._inbox.answered(peer, message, answer)

    def _entries_not_answered(
        self,
        failure: Failure,
        peer: str,
        message: Replicate,
        pipeline: AppendPipeline,
    ) -> None:
        # All that is in flight on a pipeline fails with it, one by one. Only the first
        # of these may drop it: a new one may be open by the time of the last.
        held = self._pipelines.get(peer)
        if held is not None and held.open is pipeline:
            self._drop_pipeline(peer)
        self._report(failure, peer, message)

    def _open_pipeline(self, peer: str, pipeline: _Pipeline) -> None:
        self._pipelines[peer] = pipeline
        pipeline.opening = answer_of(self._transport.append_entries_pipeline, peer)
        pipeline.opening.addCallbacks(
            self._pipeline_opened,
            self._pipeline_not_opened,
            callbackArgs=(peer, pipeline),
            errbackArgs=(peer, pipeline),
        )

    def _pipeline_opened(
        self, opened: AppendPipeline, peer: str, pipeline: _Pipeline
    ) -> None:
        if self._pipelines.get(peer) is not pipeline:
            opened.close()  # given up while it was being opened
            return
        pipeline.opening, pipeline.open = None, opened
        waiting, pipeline.waiting = pipeline.waiting, []
        for message, wire in waiting:
            self._append(opened, peer, message, wire)

    def _pipeline_not_opened(
        self, failure: Failure, peer: str, pipeline: _Pipeline
    ) -> None:
        waiting, pipeline.waiting = pipeline.waiting, []
        if failure.check(PipelineReplicationNotSupported):
            # Remembered with the pipeline that is none: single calls from here on.
            pipeline.supported = False
            for message, wire in waiting:
                self._call(
                    peer, message, answer_of(self._transport.append_entries, peer, wire)
                )
            return
        if self._pipelines.get(peer) is pipeline:
            del self._pipelines[peer]
        for message, _ in waiting:
            self._report(failure, peer, message)

    def _drop_pipeline(self, peer: str) -> None:
        """Close the pipeline to *peer*; what is in flight on it is reported lost."""
        # Popped first: to close it fails its requests, which come back here.
        pipeline = self._pipelines.pop(peer, None)
        if pipeline is None:
            return
        if pipeline.open is not None:
            pipeline.open.close()
        elif pipeline.opening is not None:
            pipeline.opening.cancel()


def _shortened(message: Replicate, count: int) -> Replicate:
    """Return *message* as it is with *count* entries only.

    Nor does it name a commit index above the last entry that is sent: a follower of
    hashicorp/raft would commit what it has there of an earlier leader.
    """
    last = message.prev_index + count
    return replace(message, last=last, commit=min(message.commit, last))
