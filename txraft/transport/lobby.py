"""Connections from whom nothing is known yet: few, and for a short time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txraft.transport.limits import ConnectionLimits


@dataclass(slots=True, eq=False)
class Guest:
    """A connection from *host*; *turn_away* closes it for a reason."""

    host: str
    turn_away: Callable[[str], None]
    timer: IDelayedCall | None = None


class Lobby:
    """Bounds the connections that have not proved who they are.

    When there are too many the oldest one goes: a peer is through in milliseconds,
    so what has waited longest is most likely nobody.
    """

    def __init__(self, clock: IReactorTime, limits: ConnectionLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._guests: dict[Guest, None] = {}
        self._by_host: dict[str, dict[Guest, None]] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, host: str, turn_away: Callable[[str], None], late: str) -> Guest:
        """Admit a connection from *host*, for `handshake_timeout` seconds.

        *turn_away* is called with *late* when they are over, and with another
        reason when room is needed. The guest has left by then.
        """
        limits = self._limits
        same_host = self._by_host.get(host, {})
        if len(same_host) >= limits.max_unauthenticated_per_address:
            reason = f"more than {len(same_host)} unauthenticated connections from it"
            self._turn_away(next(iter(same_host)), reason)
        elif len(self._guests) >= limits.max_unauthenticated:
            reason = f"more than {len(self._guests)} unauthenticated connections"
            self._turn_away(next(iter(self._guests)), reason)
        guest = Guest(host, turn_away)
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
