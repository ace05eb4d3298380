"""The limits of the HTTP API: each with its unit and default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from txraft.consistency import (
    MAY_BE_ZERO,
    contradictions,
    not_above_zero,
    numbers_of,
    out_of_bounds,
    wrong_types,
)
from txraft.daemon.memory_limit import usable_memory
from txraft.errors import ConfigError
from txraft.kv.state import MAX_SESSIONS


def _option(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


def _half_of_memory() -> int:
    # The other half is for records that are replaced while a snapshot of them is being
    # written, for memory that the allocator cannot give back, and for long answers.
    return usable_memory() // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPLimits:
    """The limits of one node's HTTP API. Sizes are bytes, durations float seconds.

    Raises: ConfigError, whose `problems` name each wrong field and its right values
    """

    max_value_bytes: int = _option(512 << 10, "Bytes of one value.")
    max_key_bytes: int = _option(1024, "Bytes of one key, in UTF-8.")
    max_body_bytes: int = _option(
        1 << 20, "Bytes of a request's body; a longer one is refused before it is read."
    )
    max_line_bytes: int = _option(
        8 << 10,
        "Bytes of the request line and of one header line. At least four times "
        "`max_key_bytes`, as a key travels percent-encoded.",
    )
    max_headers_bytes: int = _option(
        16 << 10, "Bytes of the request line and all headers together."
    )
    max_headers: int = _option(100, "Headers of one request.")
    max_requests_in_flight: int = _option(
        256, "Requests at work before more are refused with 503."
    )
    max_connections: int = _option(
        12_000, "Open connections before more are refused with 503."
    )
    max_new_connections: int = _option(
        1024,
        "Open connections of which no request was let in yet. Of more, the one that "
        "has waited longest is closed, or newcomers are while all of them are new.",
    )
    max_new_connections_per_address: int = _option(
        256, "The same, from one IP address."
    )
    max_bodies_bytes: int = _option(
        128 << 20,
        "Bytes of the bodies of all requests that arrive or are at work, but for "
        "backups; a request beyond that is refused with 503. At least "
        "`max_body_bytes`.",
    )
    max_unread_bytes: int = _option(
        128 << 20,
        "Bytes of all answers that wait for clients to read them. Above it the client "
        "that has let them wait longest is closed. At least `max_answer_bytes`.",
    )
    max_waiting: int = _option(
        11_000, "Blocking queries that wait before more are refused with 503."
    )
    default_wait: float = _option(
        300.0, "Seconds that a blocking query waits if it does not say how long."
    )
    max_wait: float = _option(600.0, "Seconds that a blocking query waits at most.")
    max_answer_bytes: int = _option(
        32 << 20, "Bytes, about, of an answer that lists many keys."
    )
    max_state_keys: int = _option(
        2_000_000,
        "Keys in the store before commands that would add one are refused with 507. "
        "It is the leader's that counts, as for the next two; give all nodes the same.",
    )
    max_state_bytes: int = field(
        default_factory=_half_of_memory,
        metadata={
            "doc": "Bytes that keys and sessions may take in memory before commands "
            "that would add to them are refused with 507. A key counts 300, a byte for "
            "each of its characters and those of its value; a session 1000 and its "
            "texts. What the node needs beside is about as much again.",
            "default": "half of what the machine, its control group and `ulimit` let "
            "the process have beyond 160 MiB; at least 16 MiB",
        },
    )
    max_sessions: int = _option(
        MAX_SESSIONS,
        "Sessions before the creation of one is refused with 507. At most 65536.",
    )
    session_ttl_min: float = _option(
        10.0, "Seconds of the shortest TTL that a session may have, at most 24 h."
    )
    max_backup_bytes: int = _option(
        32 << 20, "Bytes of a backup to restore, compressed."
    )
    max_backups: int = _option(
        4, "Backups and restorations at work before more are refused with 503."
    )
    backup_timeout: float = _option(
        120.0, "Seconds after which a backup or its restoration is given up."
    )
    request_timeout: float = _option(
        10.0, "Seconds after which a request is answered whatever became of it."
    )
    leader_wait: float = _option(
        5.0,
        "Seconds a request waits for a leader that takes it. At most "
        "`request_timeout`.",
    )
    retry_interval: float = _option(
        0.25, "Seconds between attempts to reach a leader, when no event comes first."
    )
    connect_timeout: float = _option(
        2.0, "Seconds to open a connection to the leader's HTTP address."
    )
    max_relayed_bytes: int = _option(
        64 << 20, "Bytes of the leader's answer that a follower passes on."
    )
    max_idle_forwards: int = _option(
        16, "Idle connections kept open to the leader's HTTP address."
    )
    idle_timeout: float = _option(
        60.0,
        "Seconds without a byte after which a connection that awaits no answer ends.",
    )
    read_timeout: float = _option(
        20.0,
        "Seconds from the first byte of a request to its last; a backup has "
        "`backup_timeout`. A slower client is answered 408 and closed.",
    )
    drain_timeout: float = _option(
        10.0,
        "Seconds, at most, for which a node that is told to stop serves those who are "
        "connected, so that no request is cut. The process may take 4 s more: give "
        "whoever would kill it that much.",
    )
    drain_wait: float = _option(
        0.0,
        "Seconds, at least, for which it then takes new connections: as long as a load "
        "balancer needs to learn from ``/readyz`` that it is stopping, 0 without one. "
        "At most `drain_timeout`.",
    )
    linger_timeout: float = _option(
        2.0,
        "Seconds in which a client may finish a body that was refused, so that it "
        "gets to read why.",
    )

    def __post_init__(self) -> None:
        problems = wrong_types(self)
        if not problems:
            values = numbers_of(self)
            problems = [
                *not_above_zero(values, [n for n in values if n not in MAY_BE_ZERO]),
                *out_of_bounds(values),
                *contradictions(values),
            ]
        if problems:
            raise ConfigError(problems)
