"""Validity of certificates, and warnings before they expire.

An expired certificate stops a node as surely as a dead disk, and nodes that were set up
on the same day all stop on the same day. So warnings begin 30 days ahead: in the log at
each start and once a day, in the metrics, and from `txraft doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txraft.clock import Ticker

NOTICE = timedelta(days=30)
LOOK_SECONDS = 86400.0
ISSUER = "certificate.issuer"
"""Stands for the issuers that follow the certificate in the file of `certificate`."""

REREAD = "have the node reread it, by SIGHUP or Node.reload"


@dataclass(frozen=True, slots=True)
class Validity:
    """The *end* of the certificate in the file *path*, which *setting* names.

    *setting* ends in `ISSUER` for the issuers of that certificate in the same file.
    """

    setting: str
    path: str
    end: datetime

    def warning(self, now: datetime) -> str | None:
        """Return a warning that it expires soon or has expired, None before that."""
        told = ending(self.end, now)
        whose = "of an issuer in it: " if self.setting.endswith(ISSUER) else ""
        return told and f"{self.path}: {whose}{told}: {way_out(self.setting)}"


def ending(end: datetime, now: datetime) -> str | None:
    """Return a sentence on when *end* is or was, None if it is not soon."""
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
    """Return what to do about the certificate that *setting* names."""
    if setting.endswith(ISSUER):
        return (
            "replace that issuer by one that lasts longer, or remove it if the others "
            f"trust the certificate without it, and {REREAD}"
        )
    if setting.endswith("ca"):
        return (
            f"append another authority to {setting} on every node, then issue every "
            f"node a certificate of that one, and {REREAD}"
        )
    return (
        "renew it (`txraft tls issue --renew` does, if `txraft tls` has issued it) and "
        f"{REREAD}"
    )


def ends_of(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> dict[str, datetime]:
    """Return when certificates expire, by their settings, as far as there are any.

    *chain* begins with a node's own certificate. Its issuers count by themselves: one
    that has expired does no harm if others trust the certificate without it, as they
    may if it was signed by an old and a new authority.
    """
    ends = {}
    if chain:
        ends["certificate"] = chain[0].not_valid_after_utc
    issuers = _end_of_issuers(chain)
    if issuers is not None:
        ends[ISSUER] = issuers
    if authorities:
        ends["ca"] = end_of_authority(authorities, chain)
    return ends


def _end_of_issuers(chain: Sequence[x509.Certificate]) -> datetime | None:
    """Return when the first issuer in *chain* expires, None if none is there.

    Certificates in the file that are not part of the chain do not count.
    """
    ends = []
    for certificate, issuer in pairwise(chain):
        if not is_issued_by(certificate, issuer):
            break
        ends.append(issuer.not_valid_after_utc)
    return min(ends, default=None)


def end_of_authority(
    authorities: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]
) -> datetime:
    """Return when the one of *authorities* that has issued *chain* expires.

    While one authority replaces another, the old one may expire once none of its
    certificates is in use. If several or none have issued the chain, the latest counts.
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
    """Return the wall clock's time: certificates are valid by that clock."""
    return datetime.now(UTC)


Validities = Callable[[], Sequence[Validity]]
"""Returns the certificates in force now; they change when files are read again."""


def no_certificates() -> Sequence[Validity]:
    """Return no certificates: for a node without TLS."""
    return ()


class ValidityWatch:
    """Logs a warning, at the start and once a day, of certificates that expire soon."""

    log = Logger()

    def __init__(
        self,
        validities: Validities,
        clock: IReactorTime,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._validities = validities
        self._now = now
        self._daily = Ticker(self.look)
        self._daily.clock = clock

    def start(self) -> None:
        """Check now, and then once a day."""
        self._daily.start(LOOK_SECONDS, now=True)

    def stop(self) -> None:
        """Stop checking; idempotent."""
        if self._daily.running:
            self._daily.stop()

    def look(self) -> None:
        """Log a warning for each certificate that expires soon or has expired."""
        now = self._now()
        found = [validity.warning(now) for validity in self._validities()]
        for warning in dict.fromkeys(found):  # peers and HTTP may share a file
            if warning is not None:
                self.log.warn("{found}", found=warning)
