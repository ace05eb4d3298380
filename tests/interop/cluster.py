"""Clusters of servers of both kinds, for tests.

A test is a script that tells servers what to do and waits until they say that it came
about.
"""

from __future__ import annotations

import http.client
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.processes import (
    HEARTBEAT,
    PATIENCE,
    Member,
    Refused,
    free_address,
    go_program,
    wait_until,
)

HEAD = struct.Struct(">QQI")
KINDS = ("go", "python")
ATTEMPTS = 5
LEADERSHIP_LOST = "leadership|not the leader"


def addresses_in(status: dict[str, Any]) -> set[str]:
    """Return the addresses of the members that a status lists."""
    return {server["address"] for server in status["servers"]}


class InteropTestCase(SynchronousTestCase):
    """Makes members in a directory of its own, and ends them, come what may."""

    def setUp(self) -> None:
        go_program()
        self.directory = Path(mkdtemp(prefix="txraft-interop-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.members: list[Member] = []
        self.counted = 0
        self.addCleanup(self._end)

    def _end(self) -> None:
        for member in self.members:
            member.kill()

    def make(self, kind: str, protocol: int, **config: Any) -> Member:
        """Make a member that is not started yet."""
        number = len(self.members) + 1
        address = self.new_address()
        has_id = config.pop("named", True) and protocol == 3
        member = Member(
            kind,
            f"{kind}-{number}" if has_id else address,
            address,
            self.directory / f"{kind}-{number}",
            protocol,
            config,
        )
        self.members.append(member)
        return member

    def new_address(self) -> str:
        """Choose where the next member listens."""
        return free_address()

    def form(
        self,
        kinds: list[str],
        protocol: int,
        python_protocol: int | None = None,
        **config: Any,
    ) -> list[Member]:
        """Start a cluster: the first member bootstraps it, and adds the others.

        *python_protocol* is that of the Python members where it differs.
        """
        protocols = {"go": protocol, "python": protocol}
        if python_protocol is not None:
            protocols["python"] = python_protocol
        members = [self.make(kind, protocols[kind], **config) for kind in kinds]
        first = members[0]
        first.write_peers([first])
        first.start(bootstrap=True)
        wait_until(f"{first.id} leads", lambda: first.leads)
        self.ask_leader("barrier")
        for member in members[1:]:
            member.start()
            self.ask_leader("add", **member.names)
        self.wait_equal()
        return members

    @property
    def running(self) -> list[Member]:
        """The members whose processes run."""
        return [member for member in self.members if member.process is not None]

    def leader(self) -> Member:
        """Wait until one of the members leads and the others say so too.

        A server that runs and is no member yet has nothing to say.
        """
        found: list[Member] = []

        def agreed() -> bool:
            states = [(member, member.ask("status")) for member in self.running]
            heard = [(m, s) for m, s in states if m.address in addresses_in(s)]
            said = {status["leader"] for _, status in heard}
            found[:] = [
                member
                for member, status in heard
                if said == {member.address} and status["state"] == "Leader"
            ]
            return len(found) == 1

        wait_until("the members agree on a leader", agreed)
        return found[0]

    def ask_leader(self, command: str, **told: Any) -> Member:
        """Give a command to whoever leads, and again if that is no longer so.

        A command that came about although its answer was lost is done, too.
        """
        refusals: list[str] = []
        for _ in range(10):
            leader = self.leader()
            try:
                leader.ask(command, **told)
            except Refused as refusal:
                refusals.append(str(refusal))
                if "KnownPeer" in refusals[-1] or "UnknownPeer" in refusals[-1]:
                    return leader
                time.sleep(HEARTBEAT)
            else:
                return leader
        raise AssertionError(f"no leader does {command}: {refusals}")

    def make_lead(self, member: Member) -> None:
        """Hand leadership to *member*, trying until it has it."""
        for _ in range(10):
            leader = self.leader()
            if leader is member:
                return
            self.hand_over(leader, member)
        raise AssertionError(f"{member.id} does not get to lead")

    def hand_over(self, leader: Member, member: Member) -> None:
        """Transfer leadership if the protocol version has it, or restart servers."""
        if leader.kind == "python" or leader.protocol == 3:
            try:
                leader.ask("transfer", **member.names)
            except Refused:
                time.sleep(HEARTBEAT)
        elif member.kind == "go":
            leader.kill()
            self.leader()
            leader.start()
        else:
            self.let_python_win(member)

    def let_python_win(self, member: Member) -> None:
        """Make all Go servers forget their leader; return when a Python server leads.

        A Go server grants no vote before it has missed the leader for so long that it
        campaigns itself; one that has just started knows no leader. So they start with
        more patience than *member*, which holds all of their entries by then: otherwise
        who wins would be left to chance. In the end they start as they were.
        """
        others = [other for other in self.running if other.kind == "go"]

        def holds_all() -> bool:
            last = int(member.ask("status")["last"])
            return all(last >= other.ask("status")["last"] for other in others)

        wait_until(f"{member.id} holds all entries", holds_all)
        for other in others:
            other.kill()
        for other in others:
            other.start(heartbeat=PATIENCE)
        wait_until("a Python server leads", lambda: self.leader().kind == "python")
        for other in others:
            other.kill()
            other.start()
            self.leader()

    def wait_equal(self) -> dict[str, Any]:
        """Wait until all that run have applied the same; return what."""
        answers: list[dict[str, Any]] = []

        def equal() -> bool:
            answers[:] = [member.ask("applied") for member in self.running]
            return all(answer == answers[0] for answer in answers)

        try:
            wait_until("all have applied the same", equal)
        except AssertionError:
            states = [member.ask("status") for member in self.running]
            raise AssertionError(f"{answers} {states}") from None
        return answers[0]

    def load(self, member: Member, name: str, count: int, inflight: int = 512) -> None:
        """Apply *count* commands through *member*, which leads; all must succeed.

        Where a machine is too busy for heartbeats a leader loses its leadership. Then
        the commands that came about are counted, and all of it is done again.
        """
        for attempt in range(ATTEMPTS):
            data = f"{name} {attempt}"
            outcome = member.ask("load", data=data, count=count, inflight=inflight)
            if outcome == {"done": count, "failed": {}}:
                self.counted += count
                return
            for failure in outcome["failed"]:
                self.assertRegex(failure, LEADERSHIP_LOST)
            self.ask_leader("barrier")
            self.counted = self.wait_equal()["count"]
            self.make_lead(member)
        raise AssertionError(f"{member.id} loses its leadership each time")

    def check_counted(self) -> None:
        """All that run have applied each command of `load` once."""
        self.assertEqual(self.wait_equal()["count"], self.counted)

    def commands(self, member: Member) -> Iterator[tuple[int, int, bytes]]:
        """Go through what *member* has applied: index, term and data."""
        state = bytes.fromhex(member.ask("state")["state"])
        at = 0
        while at < len(state):
            index, term, size = HEAD.unpack_from(state, at)
            at += HEAD.size
            yield index, term, state[at : at + size]
            at += size


class Writers:
    """Threads that write through whoever leads, and remember what was acknowledged."""

    def __init__(self, members: list[Member], count: int = 2) -> None:
        self._members = members
        self._running = True
        self._threads = [
            threading.Thread(target=self._write, args=(number,))
            for number in range(count)
        ]
        self.acknowledged: list[bytes] = []
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Write no more; returns when all threads have ended."""
        self._running = False
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        number = 0
        while self._running:
            number += 1
            data = f"write-{writer}-{number}"
            while self._running and not self._try(data):
                time.sleep(0.01)

    def _try(self, data: str) -> bool:
        for member in list(self._members):
            if member.process is None:
                continue
            try:
                member.ask("apply", data=data)
            except (Refused, OSError, http.client.HTTPException, ValueError):
                continue
            self.acknowledged.append(data.encode())
            return True
        return False
