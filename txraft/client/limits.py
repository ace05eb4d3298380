"""`ClientLimits` holds every bound of the client, with its unit and default."""

from __future__ import annotations

from dataclasses import dataclass, fields

from txraft.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """The bounds of one client. Sizes are bytes, durations float seconds.

    `timeout` bounds a whole call with all its attempts, `read_timeout` one attempt of a
    request that may be repeated, `connect_timeout` the opening of a connection. After
    each round of attempts at all nodes the client waits: `retry_interval` at first,
    then twice as long each time, up to `max_retry_interval`. A blocking query of a
    watch takes `watch_wait` at most. `lock_retry` is the pause between attempts at a
    lock that nobody holds but that is in its lock delay. The URL of a leader that
    cannot be reached is not used again for `shun_time`.

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
