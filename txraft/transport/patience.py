"""How long the sending of a snapshot is waited for: as long as it gets on.

A snapshot of any size may take any time, so no deadline is set for all of it. While
bytes are still to be sent, the peer has to take some within each *timeout*. Once it has
them all it stores and restores them, which may take minutes and looks the same as a
peer that is gone. A source that is a `PatientSource` is then asked whether to wait on;
another grants the peer a timeout for so many bytes of the snapshot.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from txraft.interfaces import PatientSource, SnapshotSource


class Patience:
    """That with one snapshot of *source*; *granted* are the seconds for an answer."""

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
        """Note that the peer has taken something."""
        self._moved_at = self._clock.seconds()

    def left(self, is_sent: bool) -> float:
        """Return the seconds until this is to be asked again; 0 to give up now."""
        now = self._clock.seconds()
        until = self._moved_at + self._timeout
        if is_sent:
            if not isinstance(self._source, PatientSource):
                until = max(until, self._granted_until)
            elif until <= now and self._source.may_wait():
                return self._timeout
        return max(0.0, until - now)
