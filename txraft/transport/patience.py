"""Deadlines by progress: sending a snapshot may take long while the peer takes bytes.

A large snapshot may take hours, so there is no deadline for all of it. While bytes are
left to send, the peer has to take some within each *timeout*. Once it has them all, it
stores and restores them. That may take minutes, and from here it looks like a peer that
is gone. A `PatientSource` then decides whether to wait on; with any other source the
peer has a time that grows with the size of the snapshot.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txraft.interfaces import PatientSource, SnapshotSource


class Patience:
    """The deadline of one snapshot of *source*; its response has *granted* seconds."""

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        granted: float,
        source: SnapshotSource,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._source = source
        self._moved_at = clock.seconds()
        self._granted_until = self._moved_at + granted

    def moved(self) -> None:
        """Restart the timeout: the peer has taken some bytes."""
        self._moved_at = self._clock.seconds()

    def left(self, is_sent: bool) -> float:
        """Return how many seconds to wait before asking again; 0 means give up now."""
        now = self._clock.seconds()
        until = self._moved_at + self._timeout
        if is_sent:
            if not isinstance(self._source, PatientSource):
                until = max(until, self._granted_until)
            elif until <= now and self._source.may_wait():
                return self._timeout
        return max(0.0, until - now)
