"""Bounds on connections that have not proved who they are: few, for a short time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txraft.transport.connection_limits import ConnectionLimits

_GRACE = 0.1
"""The part of `handshake_timeout` that no newer connection can cut short."""


@dataclass(slots=True, eq=False)
class PendingConnection:
    """An unauthenticated connection from *host*; *turn_away* closes it for a reason."""

    host: str
    since: float
    turn_away: Callable[[str], None]
    timer: IDelayedCall | None = None


class UnauthenticatedConnections:
    """Bounds the connections that have not proved who they are.

    When there are too many, the oldest one is closed: a peer proves itself within
    milliseconds, so the connection that has waited longest is most likely no peer's. In
    a flood the oldest is new itself; then the newcomer is refused, which costs next to
    nothing.
    """

    def __init__(self, clock: IReactorTime, limits: ConnectionLimits) -> None:
        self._clock = clock
        self._limits = limits
        # Dicts serve as ordered sets: their first key is the oldest connection.
        self._pending: dict[PendingConnection, None] = {}
        self._by_host: dict[str, dict[PendingConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def refusal_of(self, host: str) -> str | None:
        """Return why a new connection from *host* is refused, None if it is not."""
        oldest = self._oldest_in_excess(host)
        if oldest is None:
            return None
        # Without the grace a flood would close each real peer before its handshake,
        # which takes a few round trips, could end.
        waited = self._clock.seconds() - oldest.since
        if waited >= self._limits.handshake_timeout * _GRACE:
            return None
        return "too many unauthenticated connections at once"

    def enter(
        self, host: str, turn_away: Callable[[str], None], late: str
    ) -> PendingConnection:
        """Count a new connection from *host*, for at most `handshake_timeout` seconds.

        *turn_away* is called with *late* when they are over, and with another reason
        when a newer connection takes its place. It is no longer counted by then.
        """
        limits = self._limits
        oldest = self._oldest_in_excess(host)
        if oldest is not None:
            self._turn_away(oldest, "too many unauthenticated connections came after")
        pending = PendingConnection(host, self._clock.seconds(), turn_away)
        self._pending[pending] = None
        self._by_host.setdefault(host, {})[pending] = None
        reason = f"{late} within {limits.handshake_timeout:g} s"
        pending.timer = self._clock.callLater(
            limits.handshake_timeout, self._expired, pending, reason
        )
        return pending

    def leave(self, pending: PendingConnection) -> None:
        """Stop counting *pending*; idempotent."""
        if pending not in self._pending:
            return
        del self._pending[pending]
        same_host = self._by_host[pending.host]
        del same_host[pending]
        if not same_host:
            del self._by_host[pending.host]
        if pending.timer is not None:
            pending.timer.cancel()
            pending.timer = None

    def _oldest_in_excess(self, host: str) -> PendingConnection | None:
        """Return the connection that must be closed before *host* may open another."""
        same_host = self._by_host.get(host, {})
        if len(same_host) >= self._limits.max_unauthenticated_per_address:
            return next(iter(same_host))
        if len(self._pending) >= self._limits.max_unauthenticated:
            return next(iter(self._pending))
        return None

    def _expired(self, pending: PendingConnection, reason: str) -> None:
        pending.timer = None
        self._turn_away(pending, reason)

    def _turn_away(self, pending: PendingConnection, reason: str) -> None:
        # Uncounted first: what `turn_away` closes may call `leave` again.
        self.leave(pending)
        pending.turn_away(reason)


def host_of(address: object) -> str:
    """Return the host of a transport's address, or its text if it has no host."""
    host = getattr(address, "host", None)
    return host if isinstance(host, str) else str(address)
