"""A node for the services around it, which does what a test says."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from txraft.errors import RaftError


class ScriptedNode:
    """A node whose start, end and stop happen when a test says so."""

    def __init__(self) -> None:
        self.started: Deferred[None] = Deferred()
        self.ending: Deferred[RaftError | None] = Deferred()
        self.ended: Deferred[RaftError | None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.leader: Deferred[str] = Deferred()
        self.calls: list[str] = []

    def start(self) -> Deferred[None]:
        self.calls.append("start")
        return self.started

    def when_ready(self) -> Deferred[str]:
        return self.leader

    def when_stopping(self) -> Deferred[RaftError | None]:
        return self.ending

    def when_stopped(self) -> Deferred[RaftError | None]:
        self.calls.append("when_stopped")
        return self.ended

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return self.stopped

    def hurry(self) -> None:
        self.calls.append("hurry")
