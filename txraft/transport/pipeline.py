"""Pipelines: requests that are sent without waiting for earlier responses."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    ForwardRequest,
    ForwardResponse,
)
from txraft.errors import CallTimedOut, PipelineShutdown
from txraft.transport.link import Link
from txraft.wire.requests import APPEND_ENTRIES, FORWARD, encode_request


class Encoder:
    """Encodes the requests of a transport's pipelines; for several peers only once."""

    def __init__(self) -> None:
        self._request: AppendEntriesRequest | None = None
        self._encoded = b""

    def encode(self, request: AppendEntriesRequest) -> bytes:
        """Return the bytes of *request*."""
        # By identity: to compare entries would cost as much as to encode them. The
        # leader passes the same object for all peers that are at the same index.
        if request is not self._request:
            self._request, self._encoded = request, encode_request(request)
        return self._encoded


class LinkPipeline:
    """The common part of the pipelines: one link, and *timeout* for each response."""

    def __init__(self, clock: IReactorTime, link: Link, timeout: float) -> None:
        self._clock = clock
        self._link = link
        self._timeout = timeout
        self._closed = False

    def _send(self, encoded: bytes, kind: int) -> Deferred[Any]:
        deadline = self._clock.seconds() + self._timeout
        response: Deferred[Any] = self._link.send(encoded, kind, deadline)
        return response

    def close(self) -> None:
        """Close the connection; requests in flight fail with PipelineShutdown."""
        if self._closed:
            return
        self._closed = True
        # `finish` ends TLS in good order, but only `close` fails what is in flight.
        if self._link.idle:
            self._link.finish()
        else:
            self._link.close(PipelineShutdown())


class NetworkPipeline(LinkPipeline):
    """An `AppendPipeline` on a connection of its own.

    The pipeline fails when a peer does not read and more than *max_unsent_bytes* wait
    for it, or when a response takes more than *timeout* seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        link: Link,
        timeout: float,
        max_unsent_bytes: int,
        encoder: Encoder,
    ) -> None:
        super().__init__(clock, link, timeout)
        self._encoder = encoder
        self._max_unsent_bytes = max_unsent_bytes

    def append_entries(
        self, request: AppendEntriesRequest
    ) -> Deferred[AppendEntriesResponse]:
        """Send *request* at once.

        Returns: a Deferred that fails as those of the transport do, and with
            PipelineShutdown once the pipeline is closed.
        """
        if self._closed:
            return fail(PipelineShutdown())
        link = self._link
        # The window of the leader counts requests, not bytes: without this bound a peer
        # that stops reading makes this node hold a whole window of large entries.
        if link.unsent_bytes > self._max_unsent_bytes:
            link.close(
                CallTimedOut(f"{link.target} left {link.unsent_bytes} bytes unread")
            )
        return self._send(self._encoder.encode(request), APPEND_ENTRIES)


class NetworkForwardPipeline(LinkPipeline):
    """A `ForwardPipeline` on a connection of its own.

    What waits for a peer that does not read is bounded by whoever forwards.
    """

    @property
    def is_open(self) -> bool:
        """Whether a request would leave; with False nothing of it is ever sent."""
        return not (self._closed or self._link.lost)

    def forward(self, request: ForwardRequest) -> Deferred[ForwardResponse]:
        """Send *request* at once.

        Returns: a Deferred that fails as those of the transport do, and with
            PipelineShutdown once the pipeline is closed.
        """
        if self._closed:
            return fail(PipelineShutdown())
        return self._send(encode_request(request), FORWARD)
