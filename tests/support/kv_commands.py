"""Commands for tests, and state machines that have applied them."""

from __future__ import annotations

from hypothesis import strategies as st

from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError
from txraft.kv.commands import (
    CreateSession,
    Operation,
    encode_advertise,
    encode_create_session,
    encode_delete,
    encode_destroy_sessions,
    encode_end_delays,
    encode_once,
    encode_put,
    encode_restore,
    encode_transact,
)
from txraft.kv.records import TransactionResult
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind

KEYS = st.sampled_from(["a", "a/b", "a/c", "b", "é"])
SESSIONS = st.sampled_from(["s1", "s2", "s3"])
INDEXES = st.integers(0, 12)
OPERATIONS = st.builds(
    Operation,
    st.sampled_from(OperationKind),
    KEYS,
    st.binary(max_size=2),
    st.integers(0, 2),
    INDEXES,
    SESSIONS,
)
PLAIN = st.one_of(
    st.builds(encode_put, KEYS, st.binary(max_size=2), st.integers(0, 1)),
    st.builds(encode_delete, KEYS),
    st.builds(encode_advertise, st.sampled_from(["n1", "n2"]), st.just("http://x")),
    st.lists(OPERATIONS, min_size=1, max_size=4).map(encode_transact),
    st.builds(
        CreateSession,
        SESSIONS,
        st.just("name"),
        st.just("node"),
        st.sampled_from([0, 1000]),
        st.booleans(),
        st.sampled_from([0, 10_000]),
    ).map(encode_create_session),
    st.lists(SESSIONS, max_size=3).map(encode_destroy_sessions),
    st.lists(st.tuples(KEYS, INDEXES), max_size=3).map(encode_end_delays),
    st.builds(
        encode_restore,
        st.just("id"),
        st.integers(0, 2),
        st.integers(3, 4),
        st.binary(min_size=1, max_size=2),
    ),
)


def session(
    id: str, lock_delay_ms: int = 0, deletes: bool = False, ttl_ms: int = 0
) -> bytes:
    """Encode the creation of a session."""
    return encode_create_session(
        CreateSession(id, "name", "node", lock_delay_ms, deletes, ttl_ms)
    )


class Machine:
    """A state machine and the index of the next command."""

    def __init__(self, *commands: bytes) -> None:
        self.fsm = KeyValueFSM()
        self.index = 0
        for command in commands:
            self.apply(command)

    def apply(self, command: bytes) -> object:
        self.index += 1
        entry = Entry(self.index, 1, LogType.COMMAND, command)
        try:
            return self.fsm.apply(entry)
        except ApplicationError as refusal:
            return refusal

    def do(self, *operations: Operation) -> TransactionResult:
        outcome = self.apply(encode_transact(operations))
        assert isinstance(outcome, TransactionResult)
        return outcome

    def succeeds(self, *operations: Operation) -> bool:
        return not self.do(*operations).errors


def backup_commands(*commands: bytes) -> list[bytes]:
    """Encode the restoration of the state that *commands* make, in two pieces."""
    data = b"".join(Machine(*commands).fsm.snapshot().pieces(1 << 20))
    middle = len(data) // 2
    return [
        encode_restore("backup", 0, len(data), data[:middle]),
        encode_restore("backup", middle, len(data), data[middle:]),
    ]


BACKUP = backup_commands(
    encode_put("a/b", b"saved"),
    session("s1", 1000),
    encode_transact([Operation(OperationKind.LOCK, "b", session="s1")]),
)
COMMANDS = (
    PLAIN
    | st.sampled_from(BACKUP)
    | st.builds(encode_once, st.sampled_from(["c1", "c2"]), st.integers(1, 4), PLAIN)
)
WORKLOADS = st.lists(st.lists(COMMANDS, max_size=8) | st.just(BACKUP), max_size=4).map(
    lambda parts: [command for part in parts for command in part]
)
"""Any commands, among which whole restorations are not rare."""
