"""Limits on connections and calls, so that no peer can exhaust this node."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_TIMEOUT_SCALE = 256 * 1024
"""Bytes of a snapshot that one timeout is granted for (hashicorp/raft's default)."""

DEFAULT_TIMEOUT = 10.0
"""Seconds for one call, dialling included."""

DEFAULT_MAX_POOL = 3
"""Idle connections kept for each peer."""

PIECE_BYTES = 256 * 1024
"""Bytes of a snapshot that are read, sent or handed over at once."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits on the number of connections and on what they may hold in memory.

    *max_inbound_connections* counts all peers together; one more is closed at once.
    *max_connections_per_peer* counts those of one sender; one more ends the oldest.
    *handshake_timeout* is how many seconds a connection has to prove its identity and
    to send a request. *max_unauthenticated* counts connections that have not done so
    yet, *max_unauthenticated_per_address* those from one IP address; one more ends the
    oldest.
    *max_outbound_connections* counts calls, pipelines and idle connections.
    *max_idle_connections* counts idle ones to all peers together.
    *max_buffered_bytes* is what all inbound connections together may hold of messages
    that have begun; above it the one that holds most is closed.
    *max_unanswered_requests* and *max_unanswered_bytes* bound the requests without a
    response on one inbound connection; beyond that it is read no further.
    *max_unsent_bytes* bounds what waits in a pipeline for a peer that does not read;
    beyond that the pipeline fails.
    *max_warnings* refused connections are logged in *warning_interval* seconds.
    """

    max_inbound_connections: int = 256
    max_connections_per_peer: int = 32
    handshake_timeout: float = 5.0
    max_unauthenticated: int = 64
    max_unauthenticated_per_address: int = 16
    max_outbound_connections: int = 1024
    max_idle_connections: int = 256
    max_buffered_bytes: int = 128 << 20
    max_unanswered_requests: int = 1024
    max_unanswered_bytes: int = 8 << 20
    max_unsent_bytes: int = 64 << 20
    max_warnings: int = 10
    warning_interval: float = 60.0


def checked_timeout(timeout: float) -> float:
    """Return *timeout*, the seconds for one call, if it is more than 0.

    Raises: ValueError. In hashicorp/raft 0 means no timeout, which would let a silent
        peer hold a connection and its callers for ever.
    """
    if not timeout > 0:
        raise ValueError(f"the timeout of a call is more than 0 seconds, not {timeout}")
    return timeout


def snapshot_timeout(timeout: float, size: int, scale: int) -> float:
    """Return the seconds that sending a snapshot of *size* bytes may take."""
    return timeout * max(1, size // scale)
