"""Backups: `GET` and `PUT` on `/v1/snapshot`.

The work is done in short pieces on the snapshot worker. Bytes are sent and received at
the pace of the client. So neither a large state nor a slow client holds up the node.

Source: Consul's HTTP API, "Snapshot".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, NamedTuple
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IBodyProducer

from txraft.client.exchange import FileBody
from txraft.errors import (
    DataCorrupted,
    FormatTooNew,
    RaftError,
    RaftShutdown,
    UpgradeNeeded,
)
from txraft.http.answers import (
    RETRY_AFTER,
    Answer,
    HTTPRefusal,
    not_applied,
    refusal_of,
)
from txraft.http.backend import RaftNode
from txraft.http.inflight import HTTPCall
from txraft.http.leading import Leadership
from txraft.http.limits import HTTPLimits
from txraft.http.quotas import Quotas
from txraft.http.reads import Reads
from txraft.http.streams import Made, Streamed
from txraft.kv.backup import PIECE_BYTES, ArchiveReader, describe, pack
from txraft.kv.commands import MAX_RESTORE_BYTES, encode_restore
from txraft.kv.snapshot import StateReader
from txraft.kv.state import KeyValueFSM, size_of
from txraft.node.events import RaftState
from txraft.node.worker import Worker

_GZIP = (b"Content-Type", b"application/x-gzip")


class Restorable(NamedTuple):
    """Properties of the state in a backup, checked before it is proposed."""

    level: int
    keys: int
    state_bytes: int
    sessions: int


class Backups:
    """Saves and restores the whole state of the cluster; long work is on *worker*."""

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        reads: Reads,
        leadership: Leadership,
        quotas: Quotas,
        worker: Worker,
        clock: IReactorTime,
        limits: HTTPLimits,
    ) -> None:
        self._raft = raft
        self._fsm = fsm
        self._reads = reads
        self._leadership = leadership
        self._quotas = quotas
        self._worker = worker
        self._clock = clock
        self._limits = limits
        self._at_work = 0

    def get(self, call: HTTPCall) -> Answer | Deferred[Answer]:
        """Answer with an archive of the state."""
        return self._reads.run(call, self._saved)

    def put(self, call: HTTPCall) -> Deferred[Answer]:
        """Replace all keys and sessions by those of the archive in the body.

        The archive is checked first. Then its pieces are committed one after the other;
        the last piece makes the change, on every replica.
        """
        return Deferred.fromCoroutine(self._put(call))

    def _begin(self) -> None:
        if self._at_work >= self._limits.max_backups:
            raise not_applied("Too many backups are at work here.", RETRY_AFTER)
        self._at_work += 1

    def _end(self) -> None:
        self._at_work -= 1

    # Saving

    def _saved(self, call: HTTPCall) -> Answer:
        self._begin()
        captured = self._fsm.snapshot()

        def ended() -> None:
            captured.release()
            self._end()

        index = int(self._raft.stats().get("applied_index", "0"))
        term, members = self._raft.term, self._raft.configuration
        pieces = pack(
            lambda size: describe(index, term, members, size),
            lambda: captured.pieces(PIECE_BYTES),
        )
        left = max(0.0, call.deadline - self._clock.seconds())
        stream = Made(self._worker, pieces, self._clock, left, ended)
        return Streamed(200, stream, _GZIP, *self._reads.meta(self._fsm.index))

    # Restoring

    async def _put(self, call: HTTPCall) -> Answer:
        self._begin()
        try:
            file = call.upload
            assert file is not None, "the site keeps the body"
            length = await self._worker.run(lambda: file.seek(0, os.SEEK_END))
            total, state = await self._check(file)
            call.resend = lambda: self._body(file, length)

            def commit(call: HTTPCall) -> Deferred[Answer]:
                self._admit(state)
                return Deferred.fromCoroutine(self._commit(call, file, total))

            return await self._leadership.run(call, commit)
        except (DataCorrupted, FormatTooNew, UpgradeNeeded) as error:
            raise HTTPRefusal(400, f"The backup cannot be restored: {error}") from error
        except OSError as error:
            raise not_applied(f"The backup cannot be kept here: {error}") from error
        except RaftShutdown as error:
            raise not_applied("The node stops.") from error
        finally:
            self._end()

    def _admit(self, state: Restorable) -> None:
        """Raise HTTPRefusal if members of this cluster could not take *state*."""
        # Only the leader judges. On another node the proposal fails, and is forwarded.
        if self._raft.state is not RaftState.LEADER:
            return
        if state.level > self._fsm.active_level:
            raise HTTPRefusal(
                409,
                f"The backup is of level {state.level} of the state machine, and level "
                f"{self._fsm.active_level} is active here: upgrade all nodes first.",
            )
        self._quotas.check_whole(state.keys, state.state_bytes, state.sessions)

    async def _check(self, file: IO[bytes]) -> tuple[int, Restorable]:
        """Read the whole archive in *file*; return the bytes and sizes of its state."""
        archive = ArchiveReader(file, MAX_RESTORE_BYTES)
        reader = StateReader()
        found: list[Restorable] = []

        def steps() -> Iterator[bool]:
            file.seek(0)
            for piece in archive.pieces():
                reader.feed(piece)
                yield True
            state = reader.finish()
            size = size_of(state)
            found.append(
                Restorable(state.level, len(state.rows), size, len(state.sessions))
            )

        checking = steps()
        while await self._worker.run(lambda: next(checking, False)):
            pass
        return archive.state_bytes, found[0]

    async def _commit(self, call: HTTPCall, file: IO[bytes], total: int) -> Answer:
        id, offset = str(uuid4()), 0

        def read() -> Iterator[bytes]:
            file.seek(0)
            yield from ArchiveReader(file, MAX_RESTORE_BYTES).pieces()

        pieces = read()
        while offset < total:
            piece = await self._worker.run(lambda: next(pieces))
            # The client was told that nothing was changed: the last piece must not
            # follow.
            if call.answered:
                raise not_applied("Nobody waits for this restoration any more.")
            command = encode_restore(id, offset, total, piece)
            # Only the last piece changes the state.
            call.submitted = offset + len(piece) == total
            try:
                await self._raft.apply(command, self._limits.leader_wait)
            except RaftError as error:
                # Before the first piece another node may lead and take all of it. Later
                # it must not go there: its leader refuses a rest without a beginning.
                if not offset:
                    raise
                raise refusal_of(error) from error
            offset += len(piece)
        return Answer(200, b"")

    def _body(self, file: IO[bytes], length: int) -> IBodyProducer:
        """Make the body that sends the archive in *file* to another node."""

        def read(offset: int, size: int) -> Deferred[bytes]:
            def read_there() -> bytes:
                file.seek(offset)
                return file.read(size)

            return self._worker.run(read_there)

        return FileBody(length, read)
