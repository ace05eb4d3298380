"""Connections from whom nothing is known yet: few, and for a short time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txraft.transport.limits import ConnectionLimits

_GRACE = 0.1
"""The part of `handshake_timeout` for which nobody is turned away for another."""


@dataclass(slots=True, eq=False)
class Guest:
    """A connection from *host*; *turn_away* closes it for a reason."""

    host: str
    since: float
    turn_away: Callable[[str], None]
    timer: IDelayedCall | None = None


class Lobby:
    """Bounds the connections that have not proved who they are.

    When there are too many the oldest one goes: a peer is through in milliseconds,
    so what has waited longest is most likely nobody. In a flood the oldest is new
    itself; then the newcomer is not let in, which costs next to nothing.
    """

    def __init__(self, clock: IReactorTime, limits: ConnectionLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._guests: dict[Guest, None] = {}
        self._by_host: dict[str, dict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def refuses(self, host: str) -> str | None:
        """Say why a newcomer from *host* is not let in, if so."""
        oldest = self._in_the_way(host)
        if oldest is None:
            return None
        waited = self._clock.seconds() - oldest.since
        if waited >= self._limits.handshake_timeout * _GRACE:
            return None
        return "too many unauthenticated connections at once"

    def enter(self, host: str, turn_away: Callable[[str], None], late: str) -> Guest:
        """Admit a connection from *host*, for `handshake_timeout` seconds.

        *turn_away* is called with *late* when they are over, and with another
        reason when room is needed. The guest has left by then.
        """
        limits = self._limits
        oldest = self._in_the_way(host)
        if oldest is not None:
            self._turn_away(oldest, "too many unauthenticated connections came after")
        guest = Guest(host, self._clock.seconds(), turn_away)
        self._guests[guest] = None
        self._by_host.setdefault(host, {})[guest] = None
        reason = f"{late} within {limits.handshake_timeout:g} s"
        guest.timer = self._clock.callLater(
            limits.handshake_timeout, self._expired, guest, reason
        )
        return guest

    def leave(self, guest: Guest) -> None:
        """Count *guest* no more; idempotent."""
        if guest not in self._guests:
            return
        del self._guests[guest]
        same_host = self._by_host[guest.host]
        del same_host[guest]
        if not same_host:
            del self._by_host[guest.host]
        if guest.timer is not None:
            guest.timer.cancel()
            guest.timer = None

    def _in_the_way(self, host: str) -> Guest | None:
        """Return the guest that must go before another from *host* may stay."""
        same_host = self._by_host.get(host, {})
        if len(same_host) >= self._limits.max_unauthenticated_per_address:
            return next(iter(same_host))
        if len(self._guests) >= self._limits.max_unauthenticated:
            return next(iter(self._guests))
        return None

    def _expired(self, guest: Guest, reason: str) -> None:
        guest.timer = None
        self._turn_away(guest, reason)

    def _turn_away(self, guest: Guest, reason: str) -> None:
        self.leave(guest)
        guest.turn_away(reason)


def host_of(address: object) -> str:
    """Return the host of a transport's address, or what there is instead."""
    host = getattr(address, "host", None)
    return host if isinstance(host, str) else str(address)
