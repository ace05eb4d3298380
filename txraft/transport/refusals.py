"""Logs refused connections with the reason, at a bounded rate.

Without the bound, anybody who can connect could fill the disk with log lines.
"""

from __future__ import annotations

from typing import ClassVar

from OpenSSL import SSL
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.transport.connection_limits import ConnectionLimits


def tls_problem(reason: Failure) -> str | None:
    """Return OpenSSL's reason for the end of a connection, None if it was another."""
    error = reason.value
    if not isinstance(error, SSL.Error) or not error.args or not error.args[0]:
        return None
    return "; ".join(part[-1] for part in error.args[0] if part[-1]) or None


class Refusals:
    """Logs at most `max_warnings` refusals in `warning_interval` seconds of *clock*.

    The first line after a busy interval tells how many were left out. A line begins
    with *subject*, the kind of thing that was refused.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self, clock: IReactorTime, limits: ConnectionLimits, subject: str = "connection"
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._subject = subject
        self._since = float("-inf")
        self._told = self._left_out = 0

    def tell(
        self,
        address: object,
        reason: str,
        identity: str | None = None,
        fate: str = "closed",
    ) -> None:
        """Log that the subject from *address* met *fate*, for *reason*."""
        now = self._clock.seconds()
        if now - self._since >= self._limits.warning_interval:
            self._since, self._told = now, 0
        if self._told >= self._limits.max_warnings:
            self._left_out += 1
            return
        before = f" ({self._left_out} more before it)" if self._left_out else ""
        self._told, self._left_out = self._told + 1, 0
        self.log.warn(
            "{subject} from {address} {fate}: {reason}{before}",
            subject=self._subject,
            address=address,
            fate=fate,
            reason=reason,
            before=before,
            identity=identity,
        )
