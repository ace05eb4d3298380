"""Levels of the state machine: old commands keep their verdict, new ones wait."""

import hashlib
import io
from collections.abc import Callable

import msgpack
from hypothesis import HealthCheck, given, settings
from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_state import snapshot_of, stream
from tests.support.kv_commands import WORKLOADS, Machine, session
from tests.support.recorded_release import ANSWERS, DIGEST, LOG, SNAPSHOT
from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError, DataCorrupted, UpgradeNeeded
from txraft.kv.commands import (
    LEVEL,
    CommandTooNew,
    CreateSession,
    Operation,
    encode_advertise,
    encode_create_session,
    encode_once,
    encode_put,
    encode_transact,
)
from txraft.kv.records import TransactionResult, Written
from txraft.kv.snapshot import read_state
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind

SLOW = [HealthCheck.too_slow]
"""The first example takes long to draw where it is the first of the process."""


WRITTEN = Written("1m", 90_000_000_000, None, (), ("serfHealth",))
TOLD = encode_create_session(
    CreateSession("s", "name", "node", 60_000, False, 60_000, WRITTEN)
)
"""The creation of a session that tells what was written."""


def answers_of(machine: Machine, commands: list[bytes]) -> str:
    """Return the SHA-256 of all answers, as the captured ones were made."""
    lines = []
    for command in commands:
        answer = machine.apply(command)
        if isinstance(answer, TransactionResult):
            records, errors, _ = answer
            lines.append(f"Outcome(records={records!r}, errors={errors!r})")
        else:
            refused = isinstance(answer, ApplicationError)
            lines.append(str(answer) if refused else repr(answer))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def active(*commands: bytes) -> Machine:
    """Make a machine whose level is active, and that then applies *commands*."""
    machine = Machine()
    machine.fsm.activate(LEVEL)
    for command in commands:
        machine.apply(command)
    return machine


def records_in(snapshot: bytes) -> list[str]:
    """Return the records of *snapshot*, which come in no order, but for two."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(snapshot)
    first, *others, last = map(repr, unpacker)
    return [first, *sorted(others), last]


class OldLogs(SynchronousTestCase):
    """A log that was written before there were levels means what it meant."""

    def test_replay(self) -> None:
        machine = Machine()

        self.assertEqual(answers_of(machine, LOG), ANSWERS)

        self.assertEqual(machine.fsm.digest(), DIGEST)
        self.assertEqual(records_in(snapshot_of(machine.fsm)), records_in(SNAPSHOT))

    def test_replay_where_the_level_is_active(self) -> None:
        """It is the command that decides by which rules it is judged."""
        machine = active()

        self.assertEqual(answers_of(machine, LOG), ANSWERS)

        replayed, state = machine.fsm._state, read_state(io.BytesIO(SNAPSHOT))
        self.assertEqual(replayed.rows, state.rows)
        self.assertEqual(replayed.results.clients(), state.results.clients())

    def test_replay_where_nobody_waits(self) -> None:
        """That no answer is made changes nothing, at any point of the log."""
        told, untold = Machine(), Machine()
        untold.fsm.is_awaited = lambda index: False

        for command in LOG:
            told.apply(command)
            untold.apply(command)
            self.assertEqual(untold.fsm.digest(), told.fsm.digest())

        self.assertEqual(records_in(snapshot_of(untold.fsm)), records_in(SNAPSHOT))

    @settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
    @given(WORKLOADS)
    def test_any_log(self, commands: list[bytes]) -> None:
        """As above, for any log of commands that older releases know."""
        before, after, untold = Machine(), active(), Machine()
        untold.fsm.is_awaited = lambda index: False

        for command in commands:
            answer = repr(before.apply(command))
            self.assertEqual(repr(after.apply(command)), answer)
            untold.apply(command)

        self.assertEqual(after.fsm._state.rows, before.fsm._state.rows)
        self.assertEqual(untold.fsm.digest(), before.fsm.digest())
        self.assertEqual(untold.fsm.state_bytes, before.fsm.state_bytes)


class Activation(SynchronousTestCase):
    """No command of a level means anything ahead of its activation."""

    def assert_halts(self, fsm: KeyValueFSM, command: bytes, sentence: str) -> None:
        """*command* stops the replica, in whichever way it is given."""
        entry = Entry(9, 1, LogType.COMMAND, command)
        calls: list[Callable[[], object]] = [
            lambda: fsm.apply(entry),
            lambda: fsm.apply_batch([entry]),
        ]
        for call in calls:
            error = self.assertRaises(CommandTooNew, call)
            self.assertNotIsInstance(error, ApplicationError)
            self.assertIn(sentence, str(error))

    def test_active_level(self) -> None:
        fsm = KeyValueFSM()
        self.assertEqual((fsm.level, fsm.active_level), (1, 0))

        fsm.activate(1)
        fsm.activate(0)

        self.assertEqual(fsm.active_level, 1)

    def test_activate_what_is_not_understood(self) -> None:
        fsm = KeyValueFSM()

        error = self.assertRaises(UpgradeNeeded, fsm.activate, 2)

        self.assertEqual((error.used, error.known), (2, 1))
        self.assertEqual(fsm.active_level, 0)

    def test_command_ahead_of_its_activation(self) -> None:
        """A replica of an older release would stop: none may go on by itself."""
        fsm = KeyValueFSM()
        inner = encode_transact([Operation(OperationKind.SET, "k")], 1)
        for command in (
            inner,
            encode_once("c", 1, encode_put("k", b""), 1),
            encode_once("c", 1, inner),
            encode_advertise("n1:1", "http://n1:2", "n1"),
            TOLD,
            msgpack.packb([3, 1, "k", b"", 0]),
            msgpack.packb([3, 99]),
        ):
            self.assert_halts(fsm, command, "ahead of the activation")
        self.assertEqual(len(fsm), 0)

    def test_command_of_a_version_that_is_not_known(self) -> None:
        fsm = KeyValueFSM()
        fsm.activate(1)

        self.assert_halts(fsm, msgpack.packb([4, 1, "k", b"", 0]), "upgrade it")

    def test_snapshot_names_the_level(self) -> None:
        """A replica that does not understand the level must not take it."""
        machine = active(encode_once("c", 7, encode_put("k", b""), 1))
        machine.apply(encode_once("c", 8, encode_put("k", b"")))

        bytes_ = snapshot_of(machine.fsm)

        (digest,) = machine.fsm._state.results.clients()["c"].digests.values()
        self.assertEqual(
            bytes_,
            stream(
                [0, "txraft-kv", 3, 1, 0, 1],
                [1, "k", b"", 0, 1, 1, 0, ""],
                [6, "c", 0, [[7, b"\xc3", digest], [8, b"\xc3"]]],
                [3, 2],
            ).getvalue(),
        )
        fsm = KeyValueFSM()
        fsm.restore(io.BytesIO(bytes_))
        self.assertEqual(fsm.active_level, 1)
        self.assertEqual(fsm.digest(), machine.fsm.digest())
        self.assertEqual(snapshot_of(fsm), bytes_)

    def test_snapshot_of_another_level(self) -> None:
        newer = stream([0, "txraft-kv", 3, 1, 0, 2], [3, 0])
        none = stream([0, "txraft-kv", 3, 1, 0, 0], [3, 0])
        early = stream(
            [0, "txraft-kv", 2, 1, 0], [6, "c", 0, [[7, b"\xc3", bytes(8)]]], [3, 1]
        )
        short = stream(
            [0, "txraft-kv", 3, 1, 0, 1], [6, "c", 0, [[7, b"\xc3", b""]]], [3, 1]
        )

        self.assertRaises(UpgradeNeeded, read_state, newer)
        for broken in (none, early, short):
            self.assertRaises(DataCorrupted, read_state, broken)

    def test_backup_changes_no_level(self) -> None:
        """It replaces keys and sessions, not what members have agreed on."""
        old = Machine(encode_put("k", b"v"), session("s"))
        machine = active()
        data = snapshot_of(old.fsm)

        machine.apply(msgpack.packb([2, 9, "id", 0, len(data), data]))

        self.assertEqual(machine.fsm.active_level, 1)
        self.assertEqual(list(machine.fsm), ["k"])


class WhatWasWritten(SynchronousTestCase):
    """From level 1 on, names of nodes and what was written of sessions are kept."""

    def test_session(self) -> None:
        """It decides nothing: the session is what its other fields say."""
        machine = active(TOLD)

        made = machine.fsm.sessions["s"]

        self.assertEqual(made.written, WRITTEN)
        self.assertEqual(
            made._replace(written=None)[:5], ("name", "node", 60000, False, 60000)
        )

    def test_name(self) -> None:
        machine = active(encode_advertise("n1:1", "http://n1:2", "first"))
        self.assertEqual(machine.fsm.node_name("n1:1"), "first")
        self.assertEqual(machine.fsm.node_name("n2:1"), "n2:1")

        machine.apply(encode_advertise("n1:1", "http://n1:2"))

        self.assertEqual(machine.fsm.node_name("n1:1"), "n1:1")

    def test_snapshot(self) -> None:
        machine = active(TOLD, encode_advertise("n1:1", "http://n1:2", "first"))
        machine.apply(session("plain"))
        fsm = KeyValueFSM()

        fsm.restore(io.BytesIO(snapshot_of(machine.fsm)))

        self.assertEqual(fsm.sessions, machine.fsm.sessions)
        self.assertEqual(fsm.node_name("n1:1"), "first")
        self.assertEqual(fsm.digest(), machine.fsm.digest())
        self.assertEqual(snapshot_of(fsm), snapshot_of(machine.fsm))
        self.assertEqual(fsm.state_bytes, machine.fsm.state_bytes)

    def test_digest(self) -> None:
        """Replicas that differ in nothing else differ."""
        written = active(TOLD)
        plain = active(
            encode_create_session(
                CreateSession("s", "name", "node", 60_000, False, 60_000)
            )
        )
        named = active(encode_advertise("n1:1", "http://n1:2", "first"))
        other = active(encode_advertise("n1:1", "http://n1:2"))

        self.assertNotEqual(written.fsm.digest(), plain.fsm.digest())
        self.assertNotEqual(named.fsm.digest(), other.fsm.digest())

    def test_snapshot_that_tells_it_ahead_of_the_level(self) -> None:
        """Older releases have no such records, and nobody else may have made it."""
        fields = ["s", "n", "n", 0, False, 0, 1, 1]
        written = ["1m", 0, None, [], ["serfHealth"]]
        ahead = ([0, "txraft-kv", 2, 0, 1], [3, 1])
        on_time = ([0, "txraft-kv", 3, 0, 1, 1], [3, 1])
        for record in ([4, *fields, written], [2, "n1:1", "http://n1:2", "first"]):
            header, end = ahead
            early = stream(header, record, end)
            self.assertRaises(DataCorrupted, read_state, early)
            header, end = on_time
            read_state(stream(header, record, end))
        header, end = on_time
        for malformed in (
            [],
            ["1m", 0, None, [], "serfHealth"],
            ["1m", 0, None, [], [1]],
            [1, 0, None, None, None],
            ["1m", -1, None, None, None],
        ):
            broken = stream(header, [4, *fields, malformed], end)
            self.assertRaises(DataCorrupted, read_state, broken)

    def test_backup_at_level_0(self) -> None:
        """What older releases could not read gets into none of their snapshots."""
        data = snapshot_of(active(TOLD).fsm)
        machine = Machine(msgpack.packb([2, 9, "id", 0, len(data), data]))

        self.assertIsNone(machine.fsm.sessions["s"].written)
        read_state(io.BytesIO(snapshot_of(machine.fsm)))

    def test_backup_keeps_names(self) -> None:
        data = snapshot_of(Machine(encode_put("k", b"v")).fsm)
        machine = active(encode_advertise("n1:1", "http://n1:2", "first"))

        machine.apply(msgpack.packb([2, 9, "id", 0, len(data), data]))

        self.assertEqual(machine.fsm.node_name("n1:1"), "first")

    def test_done_once(self) -> None:
        """A repetition that writes the TTL in another way is another write."""
        machine = active(encode_once("c", 1, TOLD, 1))
        other = encode_create_session(
            CreateSession(
                "t", "name", "else", 60_000, False, 60_000, WRITTEN._replace(ttl="60s")
            )
        )

        again = TOLD.replace(b"node", b"else")
        self.assertEqual(machine.apply(encode_once("c", 1, again, 1)), "s")
        refused = machine.apply(encode_once("c", 1, other, 1))

        self.assertIsInstance(refused, ApplicationError)

    def test_malformed(self) -> None:
        """All replicas refuse it, and go on."""
        plain = [3, 5, "s", "n", "n", 0, 0, 0]
        for command in (
            plain,
            [*plain, None],
            [*plain, ["1m", 0, None, None]],
            [*plain, ["1m" * 40, 0, None, None, None]],
            [*plain, ["1m", 0, ["c"] * 65, None, None]],
            [*plain, ["1m", 0, None, [1], None]],
            [3, 5],
            [3, 3, "n1:1", "http://n1:2"],
            [3, 3, "n1:1", "http://n1:2", ""],
            [3, 3, "n1:1", "http://n1:2", "n" * 129],
        ):
            machine = active(msgpack.packb(command))
            self.assertEqual((command, len(machine.fsm.sessions)), (command, 0))
            self.assertEqual(machine.fsm.http_url("n1:1"), None)
