"""Backups: `GET` and `PUT` on `/v1/snapshot`.

Source: Consul's HTTP API, "Snapshot".
"""

from __future__ import annotations

from io import BytesIO
from uuid import uuid4

from twisted.internet.defer import Deferred

from txraft.errors import DataCorrupted, FormatTooNew, RaftError
from txraft.http.answers import Answer, Refusal, refusal_of
from txraft.http.archive import describe, pack, unpack
from txraft.http.calls import Call
from txraft.http.leader import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.node import Node
from txraft.http.reads import Reads
from txraft.kv.commands import MAX_RESTORE_BYTES, encode_restore
from txraft.kv.snapshot import read_state
from txraft.kv.state import KeyValueFSM

PIECE_BYTES = 256 << 10
_GZIP = (b"Content-Type", b"application/x-gzip")


class Backups:
    """Saves the whole state of the cluster, and puts it back."""

    def __init__(
        self,
        raft: Node,
        fsm: KeyValueFSM,
        reads: Reads,
        leadership: Leadership,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._reads = reads
        self._leadership = leadership
        self._limits = limits

    def get(self, call: Call) -> Answer | Deferred[Answer]:
        """Answer with an archive of the state."""
        return self._reads.run(call, self._saved)

    def put(self, call: Call) -> Deferred[Answer]:
        """Replace all keys and sessions by those of the archive in the body.

        It is checked first. Its pieces are committed one after the other, and the
        last of them makes the change, on every replica in one step.
        """
        state = _checked(call.body)

        def commit(call: Call) -> Deferred[Answer]:
            return Deferred.fromCoroutine(self._commit(call, state))

        return self._leadership.run(call, commit)

    def _saved(self, call: Call) -> Answer:
        sink = _Sink()
        snapshot = self._fsm.snapshot()
        snapshot.persist(sink)
        snapshot.release()
        state = b"".join(sink.pieces)
        stats = self._raft.stats()
        index = int(stats.get("applied_index", "0"))
        meta = describe(index, self._raft.term, self._raft.configuration, len(state))
        return Answer(200, pack(meta, state), _GZIP, *self._reads.meta(self._fsm.index))

    async def _commit(self, call: Call, state: bytes) -> Answer:
        id, begun = str(uuid4()), False
        for start in range(0, len(state), PIECE_BYTES):
            piece = state[start : start + PIECE_BYTES]
            command = encode_restore(id, start, len(state), piece)
            call.submitted = start + len(piece) == len(state)
            try:
                await self._raft.apply(command, self._limits.leader_wait)
            except RaftError as error:
                if not begun:
                    raise
                raise refusal_of(error) from error
            begun = True
        return Answer(200, b"")


class _Sink:
    """Keeps what a snapshot writes."""

    id = "backup"

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.pieces.append(data)
        return len(data)

    def close(self) -> None:
        """Nothing is left to do."""

    def cancel(self) -> None:
        """Nothing is left to do."""


def _checked(archive: bytes) -> bytes:
    try:
        state = unpack(archive, MAX_RESTORE_BYTES)
        read_state(BytesIO(state))
    except (DataCorrupted, FormatTooNew) as error:
        raise Refusal(400, f"The backup cannot be restored: {error}") from error
    return state
