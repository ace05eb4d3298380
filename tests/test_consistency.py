"""Limits that contradict each other, or the formats, are refused when they are set."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.transports import MemoryNetwork
from txraft.config import Config, validate_config
from txraft.consistency import (
    BOUNDS,
    ENTRY_OVERHEAD_BYTES,
    LOG_ENTRY_BYTES,
    MESSAGE_OVERHEAD_BYTES,
    RESTORE_ENTRY_BYTES,
    STATE_SESSIONS,
    TABLE,
    contradictions,
    numbers_of,
    out_of_bounds,
)
from txraft.core.entry import Entry, LogType
from txraft.core.messages import AppendEntriesRequest, Header
from txraft.errors import ConfigError
from txraft.http.limits import HTTPLimits
from txraft.kv.backup import PIECE_BYTES
from txraft.kv.commands import encode_restore
from txraft.kv.state import MAX_SESSIONS
from txraft.node.raft import Raft
from txraft.node.worker import MemoryWorker, Workers
from txraft.storage.memory import InmemSnapshotStore, InmemStore
from txraft.storage.peer_stores import StaticPeers
from txraft.storage.segment import MAX_ENTRY_BYTES
from txraft.testing import ListFSM
from txraft.transport.connection_limits import ConnectionLimits
from txraft.transport.network import NetworkTransport
from txraft.wire.entries import encode_entry
from txraft.wire.requests import encode_request
from txraft.wire.stream import MessageLimits


class Table(SynchronousTestCase):
    """The table of what must fit what."""

    def test_defaults_fit(self) -> None:
        """Alone and together."""
        parts = (Config(), HTTPLimits(), ConnectionLimits(), MessageLimits())
        groups = [numbers_of(part) for part in parts]

        self.assertEqual(contradictions(*groups), [])
        for group in groups:
            self.assertEqual(contradictions(group), [])
            self.assertEqual(out_of_bounds(group), [])

    def test_every_name_is_a_limit(self) -> None:
        """Else a rule would never be looked at."""
        parts = (Config(), HTTPLimits(), ConnectionLimits(), MessageLimits())
        known = numbers_of(*parts).keys()

        for rule in TABLE:
            self.assertLessEqual(rule.names, known)
        self.assertLessEqual(BOUNDS.keys(), known)

    def test_every_rule_refuses_what_is_one_too_small(self) -> None:
        """And names every setting it speaks of, with a value that it then takes."""
        parts = (Config(), HTTPLimits(), ConnectionLimits(), MessageLimits())
        values = numbers_of(*parts)
        for rule in TABLE:
            least = rule.times * sum(values[n] for n in rule.others) + rule.extra
            broken = {**values, rule.setting: least - 0.125}

            problem = rule.problem(broken)

            assert problem is not None, rule
            for name in (rule.setting, *rule.others):
                self.assertIn(name, problem)
            self.assertIsNone(rule.problem({**values, rule.setting: least}))

    def test_message_names_both_and_what_would_be_right(self) -> None:
        """Whoever reads it need not look anything up."""
        config = Config(max_pending_bytes=10)

        error = self.assertRaises(ConfigError, validate_config, config)

        self.assertEqual(
            error.problems,
            [
                "max_pending_bytes (10) is less than max_entry_bytes (1048576): the "
                "largest entry would be refused for ever; set max_pending_bytes to at "
                "least 1048576, or max_entry_bytes to at most 10"
            ],
        )


class Formats(SynchronousTestCase):
    """What the table knows of the formats is so."""

    def test_log(self) -> None:
        """The largest entry, encoded, is what a segment takes."""
        self.assertEqual(LOG_ENTRY_BYTES, MAX_ENTRY_BYTES)
        self.assertEqual(
            MessageLimits().max_string_bytes, LOG_ENTRY_BYTES - ENTRY_OVERHEAD_BYTES
        )

    def test_overheads(self) -> None:
        """With the longest numbers, names and marks that there are."""
        largest = 2**64 - 1
        entry = Entry(
            largest, largest, LogType.NOOP, b"x" * (1 << 17), cluster=b"c" * 16
        )
        entry.encoded = encode_entry(entry)
        self.assertLess(len(entry.encoded) - (1 << 17), ENTRY_OVERHEAD_BYTES)

        name = "n" * 512
        header = Header(3, name, name, b"c" * 16, b"i" * 16)
        request = AppendEntriesRequest(
            largest, name, largest, largest, [entry] * 1024, largest, header
        )
        around = len(encode_request(request)) - 1024 * len(entry.encoded)
        self.assertLess(around, MESSAGE_OVERHEAD_BYTES)

    def test_sessions(self) -> None:
        """The state machine holds as many as the table says."""
        self.assertEqual(STATE_SESSIONS, MAX_SESSIONS)

    def test_pieces_of_backups(self) -> None:
        """The command that restores one is no larger than the table says."""
        command = encode_restore("i" * 36, 1 << 40, 1 << 40, b"x" * PIECE_BYTES)

        self.assertLessEqual(len(command), RESTORE_ENTRY_BYTES)


class Configs(SynchronousTestCase):
    """`validate_config`."""

    def refused(self, **fields: Any) -> str:
        error = self.assertRaises(ConfigError, validate_config, Config(**fields))
        return str(error)

    def test_what_is_no_number(self) -> None:
        """Infinite times, fractions of entries, truth values, texts."""
        for name, value in (
            ("heartbeat_timeout", float("inf")),
            ("election_timeout", float("nan")),
            ("commit_timeout", "1"),
            ("snapshot_interval", 1e12),
            ("apply_slice", True),
            ("max_append_entries", 1.5),
            ("max_append_entries", True),
            ("trailing_logs", "5"),
            ("max_pending_bytes", float("inf")),
            ("pre_vote", 1),
            ("shutdown_on_remove", None),
            ("notify", 5),
        ):
            self.assertIn(f"{name} is {value!r}", self.refused(**{name: value}))

    def test_whole_seconds(self) -> None:
        """A duration may be an int."""
        validate_config(Config(heartbeat_timeout=2, election_timeout=3))

    def test_entry_that_no_log_takes(self) -> None:
        """It would stop the leader that has accepted it."""
        said = self.refused(max_entry_bytes=80 << 20, max_pending_bytes=400 << 20)

        self.assertIn("max_entry_bytes is 83886080", said)
        self.assertIn(str(LOG_ENTRY_BYTES - ENTRY_OVERHEAD_BYTES), said)


class Transports(SynchronousTestCase):
    """A node's limits against those of its transport."""

    def refused(self, config: Config, **limits: int) -> str:
        clock = Clock()
        names = MessageLimits.__dataclass_fields__
        of_messages = {k: v for k, v in limits.items() if k in names}
        of_connections = {k: v for k, v in limits.items() if k not in names}
        transport = NetworkTransport(
            clock,
            MemoryNetwork(clock).layer("a:1"),
            limits=MessageLimits(**of_messages),
            connection_limits=ConnectionLimits(**of_connections),
        )
        error = self.assertRaises(
            ConfigError,
            Raft,
            config,
            ListFSM(),
            InmemStore(),
            InmemStore(),
            InmemSnapshotStore(),
            StaticPeers(["a:1"]),
            "a:1",
            transport,
            clock=clock,
            workers=Workers(*(MemoryWorker() for _ in range(4))),
        )
        return str(error)

    def test_requests_that_no_member_takes(self) -> None:
        """As all members should have the same limits, its own tell."""
        said = self.refused(Config(max_append_bytes=128 << 20))

        self.assertIn("max_message_bytes (67108864) is less than max_append_", said)
        said = self.refused(Config(), max_entries=8)
        self.assertIn("max_entries (8) is less than max_append_entries (64)", said)

    def test_entries_that_it_would_not_take_itself(self) -> None:
        """Else it could propose what it could never receive."""
        said = self.refused(Config(), max_message_bytes=512 << 10)

        self.assertIn("max_message_bytes (524288) is less than max_entry_bytes", said)

    def test_connections_and_formats(self) -> None:
        """Too few of what every member needs."""
        for name in ("max_keys", "max_lists", "max_connections_per_peer"):
            self.assertIn(f"{name} is 1", self.refused(Config(), **{name: 1}))
        said = self.refused(Config(), max_unsent_bytes=1000)
        self.assertIn("max_unsent_bytes (1000) is less than", said)
