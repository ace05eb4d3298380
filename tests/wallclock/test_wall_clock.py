"""The wall clock jumps, under a cluster with TLS: nothing notices but certificates.

The members run with libfaketime, which moves the wall clock of a process while it runs,
for Python and OpenSSL alike, and leaves the monotonic one alone. Where it is not
installed the tests are skipped, but for `.ci/run`, which installs it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import SkipTest

from tests.support.forgery import DAY
from tests.support.hostile_members import Member, SecureCluster, Speaker, pre_vote, wait

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOURS = timedelta(hours=12)
"""Far beyond every timeout, and within the validity of the certificates."""


class WallClock(SecureCluster):
    @classmethod
    def begin(cls) -> None:
        """Start the processes, with a clock that can be moved."""
        if LIBRARY is None:
            if os.environ.get("CI"):
                raise AssertionError("libfaketime is not installed")
            raise SkipTest("it needs Debian's package libfaketime")
        super().begin()

    @classmethod
    def configure(cls, member: Member, every: Sequence[Member]) -> None:
        """Let *member* read how far its clock is off from a file.

        With patience, so that no election is due to anything but the clock.
        """
        super().configure(member, every)
        path = cls.directory / f"{member.name}.yaml"
        text = path.read_text().replace("400ms", "4s").replace("300ms", "3s")
        path.write_text(text)
        member.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(cls.clock_of(member)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }
        cls.clock_of(member).write_text("+0")

    @classmethod
    def clock_of(cls, member: Member) -> Path:
        """Return the file that says how far the clock of *member* is off."""
        return cls.directory / f"{member.name}.clock"

    def jump(self, offset: timedelta, *members: Member) -> None:
        """Move the clocks of *members*, or of all, and see that they have moved."""
        for member in members or self.members:
            file = self.clock_of(member)
            new = file.with_suffix(".new")
            new.write_text(f"{int(offset.total_seconds()):+d}")
            new.replace(file)
            mark = len(member.log)
            with socket.create_connection(("127.0.0.1", member.port)) as stranger:
                stranger.sendall(b"GET")
            wait(
                lambda m=member, s=mark: bool(m.lines("closed", since=s)), self.all_logs
            )  # type: ignore[misc]
            [line, *_] = member.lines("closed", since=mark)
            off = datetime.fromisoformat(line.split()[0]) - datetime.now(UTC)
            self.assertLess(abs(off - offset), timedelta(minutes=5), line)

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.jump, timedelta())
        self.speaker = Speaker(self.members[0], self.absent)
        self.addCleanup(self.speaker.close)

    def assertOpen(self, speaker: Speaker) -> None:
        """Assert that a connection with TLS still carries messages."""
        speaker.say(pre_vote(self.absent.address))
        self.assertNotEqual(speaker.hear(), b"")

    def term(self) -> str:
        """Return the term that the first member is in."""
        _, body = self.members[0].request("GET", "/v1/agent/self")
        return str(json.loads(body)["Stats"]["raft"]["term"])

    def test_jumps(self) -> None:
        """Elections, leases, sessions, queries that wait and connections go on."""
        wait(lambda: self.leader() is not None, self.all_logs)
        member, term, leader = self.members[1], self.term(), self.leader()
        assert leader is not None
        self.assertOpen(self.speaker)
        session = self.ask(member, "PUT", "/v1/session/create", b'{"TTL":"120s"}')["ID"]
        self.ask(member, "PUT", f"/v1/kv/lock?acquire={session}", b"held")
        index = self.ask(member, "GET", "/v1/kv/lock")[0]["ModifyIndex"]
        with socket.create_connection(("127.0.0.1", member.http)) as waiting:
            query = f"GET /v1/kv/lock?index={index}&wait=5m HTTP/1.1\r\n"
            query += "Host: localhost\r\n\r\n"
            waiting.sendall(query.encode())
            for offset in (HOURS, -HOURS, timedelta(), HOURS):
                self.jump(offset)
                for _ in range(10):
                    self.assertCommits()
                self.assertOpen(self.speaker)
                again = Speaker(member, self.absent)
                self.assertOpen(again)
                again.close()
            self.jump(-HOURS, leader)
            for _ in range(10):
                self.assertCommits()
            self.assertEqual((self.term(), self.leader()), (term, leader))
            [held] = self.ask(member, "GET", "/v1/kv/lock")
            self.assertEqual(held["Session"], session)
            waiting.settimeout(0.1)
            self.assertRaises(TimeoutError, waiting.recv, 1)
            self.ask(member, "PUT", "/v1/kv/lock", b"new")
            waiting.settimeout(15)
            self.assertIn(b"200 OK", waiting.recv(1000))

    def test_jump_past_the_certificates(self) -> None:
        """They are what time is asked for: new connections fail, open ones go on."""
        self.assertOpen(self.speaker)
        self.jump(3 * DAY)
        for _ in range(10):
            self.assertCommits()
        self.assertOpen(self.speaker)
        member = self.members[0]
        mark = len(member.log)
        late = Speaker(member, self.absent)
        self.addCleanup(late.close)
        wait(lambda: bool(member.lines(f"port={late.port})")), lambda: member.log)
        self.assertOneLine(member, late.port, "has expired")
        self.assertNotIn("election", member.log[mark:])

        self.jump(timedelta())

        fresh = Speaker(member, self.absent)
        self.addCleanup(fresh.close)
        self.assertOpen(fresh)

    def ask(self, member: Member, method: str, path: str, data: bytes = b"") -> list:  # type: ignore[type-arg]
        """Make a request that must succeed, and read its JSON."""
        status, body = member.request(method, path, data or None)
        self.assertEqual(status, 200, body)
        found: list[dict[str, object]] = json.loads(body)
        return found
