"""Every bound of the client, with its unit and default."""

from __future__ import annotations

from dataclasses import dataclass, fields

from txraft.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """The bounds of one client. Sizes are bytes, durations float seconds.

    `timeout` bounds a whole call with all its attempts, `read_timeout` one attempt of
    what may be repeated, `connect_timeout` the opening of a connection. Between
    rounds of attempts it waits `retry_interval`, then twice that, up to
    `max_retry_interval`. A watch asks for changes for `watch_wait` at a time.
    `lock_retry` is the wait before another try at a lock that nobody holds but that
    is in its lock delay. A node that is told to lead but not reached is not tried
    again for `shun_time`.

    Raises: ConfigError, whose `problems` names each field and what would be right.
    """

    timeout: float = 15.0
    read_timeout: float = 5.0
    connect_timeout: float = 2.0
    retry_interval: float = 0.1
    max_retry_interval: float = 2.0
    watch_wait: float = 60.0
    lock_retry: float = 1.0
    shun_time: float = 60.0
    max_answer_bytes: int = 64 << 20
    max_idle_connections: int = 8

    def __post_init__(self) -> None:
        problems = [
            f"{each.name} is {getattr(self, each.name)}, it must be above 0"
            for each in fields(self)
            if not getattr(self, each.name) > 0
        ]
        if problems:
            raise ConfigError(problems)
