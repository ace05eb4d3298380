"""How long certificates last, and a warning of those that soon do no more.

An expired certificate stops a node as surely as a dead disk, and all nodes that were
set up on one day on the same day. So it is told 30 days ahead: in the log at each start
and once a day, in the metrics, and by `txraft doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

NOTICE = timedelta(days=30)
LOOK_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Validity:
    """Until when the certificate in the file *path* is valid, which *setting* names."""

    setting: str
    path: str
    end: datetime

    def warning(self, now: datetime) -> str | None:
        """Say that it has expired or soon will; None while there is time."""
        told = ending(self.end, now)
        return told and f"{self.path}: {told}: {way_out(self.setting)}"


def ending(end: datetime, now: datetime) -> str | None:
    """Say in words when what is valid until *end* expires, None if that is not soon."""
    left = end - now
    if left > NOTICE:
        return None
    when = f"{end.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return f"it has expired, on {when}, and nobody accepts it any more"
    days = left.days
    in_days = "within a day" if not days else f"in {days} day{'s' * (days > 1)}"
    return f"it expires {in_days}, on {when}"


def way_out(setting: str) -> str:
    """Say what to do about the certificate that *setting* names."""
    if setting.endswith("ca"):
        return (
            f"append another authority to {setting} on every node, then issue every "
            "node a certificate of that one; SIGHUP has nodes reread their files"
        )
    return (
        "renew it (`txraft tls issue --renew` does, if `txraft tls` has issued it) and "
        "send SIGHUP to the node"
    )


def end_of_chain(certificates: Sequence[x509.Certificate]) -> datetime:
    """Return until when the first of *certificates* is valid, with its intermediates.

    Whatever else is in the file does not count.
    """
    last = certificates[0]
    end = last.not_valid_after_utc
    for issuer in certificates[1:]:
        if not is_issued_by(last, issuer):
            break
        last, end = issuer, min(end, issuer.not_valid_after_utc)
    return end


def end_of_authority(
    authorities: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]
) -> datetime:
    """Return until when the one of *authorities* is valid that has issued *chain*.

    While one replaces another, the old one may expire once nothing of it is in use. Of
    several that would do, and where none has issued it, the last one counts.
    """
    issuers = [
        authority
        for authority in authorities
        if any(is_issued_by(certificate, authority) for certificate in chain)
    ]
    return max(each.not_valid_after_utc for each in issuers or authorities)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the key of *issuer* has signed *certificate*."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def utc_now() -> datetime:
    """Return the time of the wall clock, by which certificates are valid."""
    return datetime.now(UTC)


Validities = Callable[[], Sequence[Validity]]
"""Tells what is in force just now: it changes when files are reread."""


def no_certificates() -> Sequence[Validity]:
    """Tell of a node without TLS."""
    return ()


class ValidityWatch:
    """Warns at the start, and once a day, of each certificate that expires soon."""

    log = Logger()

    def __init__(
        self,
        validities: Validities,
        clock: IReactorTime,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._validities = validities
        self._now = now
        self._daily = LoopingCall(self.look)
        self._daily.clock = clock

    def start(self) -> None:
        """Look now, and then once a day."""
        self._daily.start(LOOK_SECONDS, now=True)

    def stop(self) -> None:
        """Look no more; idempotent."""
        if self._daily.running:
            self._daily.stop()

    def look(self) -> None:
        """Warn of what expires soon, or has expired."""
        now = self._now()
        found = [validity.warning(now) for validity in self._validities()]
        for warning in dict.fromkeys(found):  # peers and HTTP may share a file
            if warning is not None:
                self.log.warn("{found}", found=warning)
