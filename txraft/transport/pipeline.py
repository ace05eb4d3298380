"""AppendEntries requests that do not wait for each other's answers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from txraft.core.messages import AppendEntriesRequest, AppendEntriesResponse
from txraft.errors import CallTimedOut, PipelineShutdown
from txraft.transport.link import Link
from txraft.wire.requests import APPEND_ENTRIES, encode_request


class Encoder:
    """Encodes requests of a transport's pipelines, one for several peers only once."""

    def __init__(self) -> None:
        self._request: AppendEntriesRequest | None = None
        self._encoded = b""

    def encode(self, request: AppendEntriesRequest) -> bytes:
        """Return the bytes of *request*."""
        if request is not self._request:
            self._request, self._encoded = request, encode_request(request)
        return self._encoded


class NetworkPipeline:
    """An `AppendPipeline` on a connection of its own.

    A peer that does not read fails the pipeline once *max_unsent_bytes* wait for it,
    or when an answer is *timeout* seconds late.
    """

    def __init__(
        self,
        clock: IReactorTime,
        link: Link,
        timeout: float,
        max_unsent_bytes: int,
        encoder: Encoder,
    ) -> None:
        self._clock = clock
        self._encoder = encoder
        self._link = link
        self._timeout = timeout
        self._max_unsent_bytes = max_unsent_bytes
        self._closed = False

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
        if link.unsent_bytes > self._max_unsent_bytes:
            link.close(
                CallTimedOut(f"{link.target} left {link.unsent_bytes} bytes unread")
            )
        deadline = self._clock.seconds() + self._timeout
        encoded = self._encoder.encode(request)
        answer: Deferred[Any] = link.send(encoded, APPEND_ENTRIES, deadline)
        return answer

    def close(self) -> None:
        """Close the connection; requests in flight fail with PipelineShutdown."""
        if self._closed:
            return
        self._closed = True
        if self._link.idle:
            self._link.finish()
        else:
            self._link.close(PipelineShutdown())
