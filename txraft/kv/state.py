"""The key-value state machine: apply the commands of the log, and read their state.

It knows neither consensus nor HTTP nor time: a session or a lock delay ends because a
command says so. Limits on keys and values are checked before a command is proposed,
never here: replicas must agree whatever their settings are.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import msgpack
from twisted.internet.defer import Deferred

from txraft.core.entry import Entry
from txraft.errors import (
    ApplicationError,
    DataCorrupted,
    FormatTooNew,
    RaftError,
    UpgradeNeeded,
)
from txraft.kv.capture import Capture
from txraft.kv.commands import (
    LEVEL,
    MAX_ANSWER_BYTES_3,
    MAX_VISITED_KEYS_3,
    Advertise,
    Command,
    CommandTooNew,
    CreateSession,
    Delete,
    DestroySessions,
    EndDelays,
    Once,
    Operation,
    Put,
    Restore,
    Transact,
    decode,
    encode,
    is_command,
)
from txraft.kv.delays import Begun, DelaysBegun
from txraft.kv.keyindex import KeyIndex, ReadView
from txraft.kv.once import DIGEST_BYTES
from txraft.kv.operations import TransactionAnswer, TransactionView, read, run
from txraft.kv.records import (
    CREATE_INDEX,
    FLAGS,
    HOLDER,
    LOCK_INDEX,
    MODIFY_INDEX,
    VALUE,
    Delay,
    OperationError,
    Record,
    Row,
    Session,
    Staged,
    State,
    TransactionResult,
)
from txraft.kv.snapshot import (
    FORMAT,
    KeyValueSnapshot,
    StateReader,
    digest_parts,
    is_snapshot,
    read_state,
)
from txraft.kv.watches import Scope, Topic, Watches

MAX_ADVERTISED = 1024
MAX_SESSIONS = 65536
KEY_BYTES = 300
"""Bytes of memory for a key besides its name and value, about."""

SESSION_BYTES = 1000
"""Bytes of memory for a session besides its texts, about."""

TURN_KEYS = 2000
"""Keys of a backup put in place in one turn of the reactor: a millisecond or two."""


class _Derived(NamedTuple):
    """What is derived from a state, and never replicated."""

    keys: KeyIndex
    held: dict[str, set[str]]
    delays_begun: DelaysBegun
    bytes: int


Later = Callable[[Callable[[], None]], object]


class KeyValueFSM:
    """The state machine behind the key-value node.

    Reads are for the reactor thread. They see the state after the last command applied.

    The node sets these functions:

    - `on_advertise` is called after each command that tells an HTTP address, but not
      after a restore.
    - `on_activate` is called after each activation of a level.
    - `on_restore` is called after a snapshot has replaced the state, in the thread that
      did it.
    - `on_begun` is called with the id of each new session, and with each group of lock
      delays that begins.
    - `later` calls a function in another turn of the reactor. With it a large backup is
      put in place in many turns; without it, in one.
    - `is_awaited` returns whether somebody waits here for the answer to the entry at an
      index. If nobody does, as on followers and after a start, no answer is made.

    `on_begun`, `on_activate` and the functions in `watches` are called in the middle of
    applying, so they may only note something down.

    `catalog_index` is no part of the state. It grows whenever the catalog changes that
    this node shows.

    It is a `LeveledFSM`: it does the commands of `level` 1 only after `activate`. It is
    a `NamedFSM`, too, and recognizes its own data.
    """

    level = LEVEL
    application_name = FORMAT

    def __init__(self) -> None:
        self.on_advertise: Callable[[], object] = _nothing
        self.on_activate: Callable[[], object] = _nothing
        self.on_restore: Callable[[], object] = _nothing
        self.on_begun: Callable[[str | Begun], object] = _nothing_of
        self.later: Later | None = None
        self.is_awaited: Callable[[int], bool] = _always
        self.watches = Watches()
        self.catalog_index = 0
        self._captures: tuple[Capture, ...] = ()
        self._become(State({}, {}, 0))

    def is_own_command(self, data: bytes) -> bool:
        """Return whether *data* may be a command of this application."""
        return is_command(data)

    def is_own_snapshot(self, head: bytes) -> bool:
        """Return whether *head* may begin a snapshot of this application."""
        return is_snapshot(head)

    # Reads

    def get(self, key: str) -> Record | None:
        """Return the record of *key*, None when there is none."""
        row = self._state.rows.get(key)
        return None if row is None else Record(key, *row)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with *prefix*, in order."""
        return self._keys.under(prefix)

    def records(self, prefix: str = "") -> Iterator[Record]:
        """Iterate over the records whose keys begin with *prefix*, in order."""
        keys = self._keys
        return (Record(key, *keys.rows[key]) for key in keys.under(prefix))

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._state.rows)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, in an arbitrary order."""
        return iter(self._state.rows)

    @property
    def index(self) -> int:
        """The index of the last command that changed a key, 0 before the first."""
        return self._state.index

    @property
    def session_index(self) -> int:
        """The index of the last command that changed a session, 0 before the first."""
        return self._state.session_index

    @property
    def sessions(self) -> Mapping[str, Session]:
        """All sessions by id, the oldest first."""
        return self._state.sessions

    @property
    def delays(self) -> Mapping[str, Delay]:
        """The lock delays that still run, by key."""
        return self._state.delays

    @property
    def delays_begun(self) -> DelaysBegun:
        """The lock delays in groups that began together."""
        return self._delays_begun

    def locks_held(self, session: str) -> int:
        """Count the keys that *session* holds."""
        return len(self._held.get(session, ()))

    def changed_at(self, topic: Topic) -> int:
        """Return the index of the last change of *topic*, or a later one."""
        if topic.scope is Scope.SESSIONS:
            return self._state.session_index
        if topic.scope is Scope.SESSION:
            session = self._state.sessions.get(topic.text)
            # Nothing tells when a session ended, only that it was by then at the
            # latest.
            return self.session_index if session is None else session.modify_index
        if topic.scope is Scope.CATALOG:
            return self.catalog_index
        keys = self._keys
        if topic.scope is Scope.KEY:
            row = keys.rows.get(topic.text)
            return keys.removed_at(topic.text) if row is None else row[MODIFY_INDEX]
        return keys.changed_under(topic.text)

    def read_view(self, prefix: str = "") -> ReadView:
        """Show the keys under *prefix* as they are now, until the view is closed."""
        return self._keys.read_view(prefix, self._state.index)

    def read(
        self, operations: Sequence[Operation], max_answer_bytes: int | None = None
    ) -> Generator[None, None, TransactionResult]:
        """Do a transaction that only reads, in short steps.

        All steps see the state at the first one.
        Raises: TransactionTooLarge; ReadViewEnded, if too much changes meanwhile
        """
        most_keys = None if max_answer_bytes is None else MAX_VISITED_KEYS_3
        answer = TransactionAnswer(max_answer_bytes, most_keys)
        return read(self._state, self._keys, operations, answer)

    def check_answer(self, operations: Sequence[Operation]) -> None:
        """Raise TransactionTooLarge if *operations*, done now, exceeded the bounds.

        The rules of level 0 have no bounds, so the proposer has to check them.
        """
        view = TransactionView(self._state, self._keys, self._state.index)
        answer = TransactionAnswer(MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3, wanted=False)
        run(view, operations, answer)

    def has_done(self, client: str, sequence: int) -> bool:
        """Return whether a command of *client* under *sequence* would not be done."""
        try:
            return self._state.results.find(client, sequence) is not None
        except ApplicationError:
            return True

    def http_url(self, address: str) -> str | None:
        """Return the HTTP URL of the node at the peer *address*, None if unknown."""
        return self._state.urls.get(address)

    def node_name(self, address: str) -> str:
        """Return the name of the node at the peer *address*, else the address."""
        return self._state.names.get(address, address)

    def is_advertised(self, address: str, url: str, name: str) -> bool:
        """Return whether the state has this *url* and *name* of the node at *address*.

        A *name* of "" is none.
        """
        known = self.http_url(address), self.node_name(address)
        return known == (url, name or address)

    def catalog_changed(self) -> None:
        """Let the index of the catalog grow, and wake its waiters."""
        # Clients that kept an index would wait for ever if it went back. It starts from
        # the index of the keys so that it hardly ever does when the node is restarted.
        self.catalog_index = max(2, self.index, self.catalog_index + 1)
        self.watches.catalog_changed()

    def everything_changed(self) -> None:
        """Wake everybody: a snapshot has replaced the state.

        Thread: reactor
        """
        # The index first: a snapshot brings names and URLs but no index of the catalog,
        # and whoever is woken waits again unless it has grown.
        self.catalog_changed()
        self.watches.everything_changed()

    @property
    def state_bytes(self) -> int:
        """Bytes of memory for keys and sessions, about.

        A key counts `KEY_BYTES` plus one for each character and each byte of its value.
        A session counts `SESSION_BYTES` plus its texts.
        """
        return self._bytes

    @property
    def active_level(self) -> int:
        """The level whose commands may be proposed; 0 until one is activated."""
        return self._state.level

    def digest(self) -> str:
        """Return the SHA-256 of the whole content, equal on equal replicas."""
        hasher = hashlib.sha256()
        for part in digest_parts(self._state):
            hasher.update(part)
        return hasher.hexdigest()

    # Called by the node

    def apply(self, log: Entry) -> object:
        """Apply one command.

        Returns: a TransactionResult for a transaction, the id of a new session, True
            for all other commands; a Deferred of True for the last piece of a backup
        """
        command = decode(log.data, self._state.level)
        return _VERBS[type(command)](self, log.index, command)

    def activate(self, level: int) -> None:
        """Accept the commands of *level* and below from now on.

        Raises: UpgradeNeeded for a level that this code does not understand
        """
        if level > LEVEL:
            raise UpgradeNeeded(level, LEVEL)
        # Never down: entries of the higher level may be in the log already.
        self._state.level = max(level, self._state.level)
        self.on_activate()

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply commands in order; a refused command has its error for an answer.

        A Deferred ends the batch early: later commands have to wait until it fires.
        """
        answers: list[object] = []
        for log in logs:
            try:
                command = decode(log.data, self._state.level)
                answer = _VERBS[type(command)](self, log.index, command)
            except ApplicationError as refusal:
                answer = refusal
            answers.append(answer)
            # `is not True` is for speed: nearly all answers are True.
            if answer is not True and isinstance(answer, Deferred):
                break
        return answers

    def snapshot(self) -> KeyValueSnapshot:
        """Capture the state: the keys as they are now, and a copy of the rest.

        Until the snapshot is released, each command keeps the records that it replaces.
        """
        capture = self._keys.capture(self._state.index)
        self._captures = (*self._captures, capture)
        rest = self._state.copy_without_rows()
        return KeyValueSnapshot(rest, capture, lambda: self._release(capture))

    def _release(self, capture: Capture) -> None:
        """Keep no more records for *capture*; free the kept ones, in turns."""
        capture.is_released = True
        self._captures = tuple(each for each in self._captures if each is not capture)
        if self.later is not None and not capture.drain(TURN_KEYS):
            self._drain(capture, self.later)

    def _drain(self, capture: Capture, later: Later) -> None:
        def drain() -> None:
            if not capture.drain(TURN_KEYS):
                later(drain)

        later(drain)

    def restore(self, source: BinaryIO) -> None:
        """Replace the state by the one read from *source*, or leave it untouched.

        Raises: DataCorrupted, FormatTooNew, UpgradeNeeded
        Thread: snapshot; nothing else may touch the state meanwhile
        """
        self._become(read_state(source))
        self.on_restore()

    def _become(self, state: State, derived: _Derived | None = None) -> None:
        """Take over *state*, and what is *derived* from it if that is made already."""
        if derived is None:
            keys = KeyIndex(state.rows, state.index)
            deque(keys.fill(), maxlen=0)
            delays_begun = DelaysBegun(state.delays)
            derived = _Derived(keys, _locks(state.rows), delays_begun, size_of(state))
        self._keys, self._held, self._delays_begun, self._bytes = derived
        self._state = state
        # Captures of the former state need nothing of what changes from now on. Whoever
        # takes that state to pieces must keep its records for them: see `_replace`.
        self._captures = ()
        self._backup = BackupReader()
        for piece in state.staged.pieces if state.staged is not None else ():
            self._backup.feed(piece)

    # One function for each verb

    def _put(self, index: int, command: Put) -> bool:
        """Write the record; an equal one keeps its ModifyIndex."""
        # The hot path: `_set` in line, without what a put cannot change.
        key = command.key
        rows = self._state.rows
        old: Row | None = rows.get(key)
        if old is None:
            rows[key] = (command.value, command.flags, index, index, 0, "")
            self._bytes += KEY_BYTES + len(key) + len(command.value)
        elif old[VALUE] == command.value and old[FLAGS] == command.flags:
            return True
        else:
            # Kept before the new record takes its place, see `txraft.kv.capture`.
            if self._captures:
                self._keep(key, old)
            value, flags = command.value, command.flags
            rows[key] = (
                value,
                flags,
                old[CREATE_INDEX],
                index,
                old[LOCK_INDEX],
                old[HOLDER],
            )
            self._bytes += len(value) - len(old[VALUE])
        self._keys.changed(key, old, index)
        self._state.index = index
        self.watches.key_changed(key)
        return True

    def _delete(self, index: int, command: Delete) -> bool:
        if command.key in self._state.rows:
            self._set(command.key, None, index)
        return True

    def _advertise(self, index: int, command: Advertise) -> bool:
        urls = self._state.urls
        if command.address not in urls and len(urls) >= MAX_ADVERTISED:
            raise ApplicationError(f"{MAX_ADVERTISED} HTTP addresses are known already")
        urls[command.address] = command.url
        if command.name and command.name != command.address:
            self._state.names[command.address] = command.name
        else:
            self._state.names.pop(command.address, None)
        self.catalog_changed()
        self.on_advertise()
        return True

    def _transact(self, index: int, command: Transact) -> TransactionResult:
        level = command.level
        wanted = self.is_awaited(index)
        most_bytes, most_keys = MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3
        answer = TransactionAnswer(most_bytes, most_keys, wanted, lenient=not level)
        return self._run(index, command.operations, answer, level)

    def _run(
        self,
        index: int,
        operations: Sequence[Operation],
        answer: TransactionAnswer,
        level: int,
    ) -> TransactionResult:
        """Do *operations*; an error leaves the state untouched."""
        view = TransactionView(self._state, self._keys, index)
        outcome = run(view, operations, answer, level)
        if not outcome.errors:
            # Trees first: `view.changes` may make keys anew under the same prefix.
            for prefix in view.cleared:
                self._clear(prefix, view.changes, index)
            for key, row in view.changes.items():
                self._set(key, row, index)
        return outcome

    def _create_session(self, index: int, command: CreateSession) -> str:
        state = self._state
        if command.id in state.sessions:
            raise ApplicationError(f"the session {command.id} exists already")
        if len(state.sessions) >= MAX_SESSIONS:
            raise ApplicationError(f"there are {MAX_SESSIONS} sessions already")
        state.sessions[command.id] = Session(
            name=command.name,
            node=command.node,
            lock_delay_ms=command.lock_delay_ms,
            deletes=command.deletes,
            ttl_ms=command.ttl_ms,
            create_index=index,
            modify_index=index,
            written=command.written,
        )
        self._bytes += _session_size(state.sessions[command.id])
        self._sessions_changed(index, [command.id])
        self.on_begun(command.id)
        return command.id

    def _destroy_sessions(self, index: int, command: DestroySessions) -> bool:
        sessions = self._state.sessions
        found = [id for id in dict.fromkeys(command.ids) if id in sessions]
        for id in found:
            session = sessions.pop(id)
            self._bytes -= _session_size(session)
            self._invalidate(id, session, index)
        if found:
            self._sessions_changed(index, found)
        return True

    def _invalidate(self, id: str, session: Session, index: int) -> None:
        """Release or delete the locks of a session that ended; begin their delays."""
        # Sorted, as the key index needs them so, and as the order of a set differs
        # between replicas.
        keys = sorted(self._held.pop(id, ()))
        if not keys:
            return
        for capture in self._captures:
            capture.keep_many(keys)
        # All keys are done together, for speed: a session may hold thousands of locks,
        # and this is one step, as the deletion of a tree is.
        rows = self._state.rows
        olds = [rows[key] for key in keys]
        if session.deletes:
            for key in keys:
                del rows[key]
            self._bytes -= KEY_BYTES * len(keys) + sum(map(len, keys))
            self._bytes -= sum(len(old[VALUE]) for old in olds)
            self._keys.removed_each(keys, olds, index)
        else:
            for key, old in zip(keys, olds, strict=True):
                rows[key] = (
                    old[VALUE],
                    old[FLAGS],
                    old[CREATE_INDEX],
                    index,
                    old[LOCK_INDEX],
                    "",
                )
            self._keys.changed_each(keys, olds, index)
        self._state.index = index
        self.watches.keys_changed("", keys)
        if session.lock_delay_ms:
            self._begin_delays(keys, Delay(index, session.lock_delay_ms))

    def _begin_delays(self, keys: Sequence[str], delay: Delay) -> None:
        delays, begun = self._state.delays, self._delays_begun
        for key in keys:
            old = delays.get(key)
            delays[key] = delay
            if old is not None:
                begun.removed(old)
        if begun.added_many(keys, delay):
            self.on_begun(Begun(*delay))

    def _end_delays(self, _index: int, command: EndDelays) -> bool:
        delays = self._state.delays
        for key, begun in command.delays:
            delay = delays.get(key)
            if delay is not None and delay.begun == begun:
                del delays[key]
                self._delays_begun.removed(delay)
        return True

    def _once(self, index: int, command: Once) -> object:
        results = self._state.results
        client, sequence = command.client, command.sequence
        inner: Command = command.command
        # The rules of level 0 know no digest, and replicas of older releases go by
        # them: so such a command is not compared with the first one.
        digest = _digest(inner) if command.level else b""
        known = results.find(client, sequence, digest)
        if known is not None:
            return _unpack_answer(known)
        if isinstance(inner, Transact):
            answer: object = self._transact_once(index, inner)
        else:
            answer = _VERBS[type(inner)](self, index, inner)
        # A refusal was raised before this and is not remembered: it changed nothing,
        # and a repetition may find another state.
        packed: bytes = msgpack.packb(
            [answer.records, answer.errors]
            if isinstance(answer, TransactionResult)
            else answer
        )
        results.remember(client, sequence, packed, digest)
        return answer

    def _transact_once(self, index: int, command: Transact) -> TransactionResult:
        """Do a transaction whose answer becomes part of the state."""
        # The answer is made even if nobody waits for it: all replicas must keep it.
        if not command.level:
            answer = TransactionAnswer(None, None)
        else:
            answer = TransactionAnswer(MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3)
        return self._run(index, command.operations, answer, command.level)

    def _restore(self, index: int, command: Restore) -> bool | Deferred[object]:
        """Keep a piece of a backup, which must follow the last piece."""
        staged = self._state.staged
        if command.offset == 0:
            staged = Staged(command.id, command.total, 0, ())
            self._backup = BackupReader()
        expected = (command.id, command.total, command.offset)
        if staged is None or staged[:3] != expected:
            # Two restorations may have crossed. Neither may mix its pieces with the
            # other's.
            self._state.staged = None
            raise ApplicationError("the pieces of the backup do not follow each other")
        self._backup.feed(command.piece)
        size = staged.size + len(command.piece)
        if size == command.total:
            return self._take_backup(index)
        self._state.staged = staged._replace(
            size=size, pieces=(*staged.pieces, command.piece)
        )
        return True

    def _take_backup(self, index: int) -> bool | Deferred[object]:
        """Replace the state by the complete backup, at once or in turns.

        Until it is replaced, reads see the state before the last piece. The first turn
        looks at each key once more, whether the session that holds it is in the backup.
        """
        reader, self._backup = self._backup, BackupReader()
        try:
            backup = reader.finish()
        except RaftError:
            self._state.staged = None
            raise
        turns = self._replace(backup, index)
        if self.later is None:
            deque(turns, maxlen=0)
            return True
        done: Deferred[object] = Deferred()
        self._take_turn(turns, done, self.later)
        return done

    def _take_turn(
        self, turns: Iterator[bool], done: Deferred[object], later: Later
    ) -> None:
        if next(turns, None) is None:
            done.callback(True)
        else:
            later(lambda: self._take_turn(turns, done, later))

    def _replace(self, backup: State, index: int) -> Iterator[bool]:
        """Replace the state by *backup*, in turns of bounded length.

        All keys and sessions count as changed at *index*: the indexes in the backup
        belong to another history. The LockIndex of a key never falls, because it tells
        the holders of a lock apart. Addresses, names, level and first results stay
        those of this cluster.
        """
        now, rows = self._state, backup.rows
        held: dict[str, set[str]] = {}
        size = 0
        for count, (key, row) in enumerate(rows.items(), 1):
            rows[key] = _restored(row, now.rows.get(key), index)
            size += KEY_BYTES + len(key) + len(row[VALUE])
            if row[HOLDER]:
                held.setdefault(row[HOLDER], set()).add(key)
            if not count % TURN_KEYS:
                yield True
        sessions: dict[str, Session] = {}
        for count, (id, session) in enumerate(backup.sessions.items(), 1):
            sessions[id] = session._replace(
                create_index=index,
                modify_index=index,
                # A snapshot of level 0 cannot hold it: who starts from one would
                # differ.
                written=session.written if now.level else None,
            )
            size += _session_size(sessions[id])
            if not count % TURN_KEYS:
                yield True
        delays: dict[str, Delay] = {}
        delays_begun = DelaysBegun(delays)
        for count, (key, delay) in enumerate(backup.delays.items(), 1):
            delays[key] = delay._replace(begun=index)
            delays_begun.added(key, delays[key])
            if not count % TURN_KEYS:
                yield True
        keys = KeyIndex(rows, index)
        for _ in keys.fill():
            yield True
        # All is ready now: from here to `_become` there is no turn in between.
        self._keys.end_views()
        state = State(
            rows=rows,
            urls=now.urls,
            index=index,
            session_index=index,
            sessions=sessions,
            delays=delays,
            results=now.results,
            level=now.level,
            names=now.names,
        )
        # Not before the last turn: others may have begun in the turns until now.
        captures = self._captures
        self._become(state, _Derived(keys, held, delays_begun, size))
        self.watches.everything_changed()
        yield from _freed(now.rows, captures)

    # Changes

    def _set(self, key: str, row: Row | None, index: int) -> None:
        """Set or remove the record of *key*, with everything derived from it."""
        rows = self._state.rows
        old = rows.get(key)
        if row is old:
            return
        if old is not None:
            if self._captures:
                self._keep(key, old)
            self._bytes -= KEY_BYTES + len(key) + len(old[VALUE])
            if old[HOLDER]:
                self._let_go(old[HOLDER], key)
        if row is None:
            assert old is not None, "what is not there is not changed to nothing"
            del rows[key]
            self._keys.removed(key, old, index)
        else:
            rows[key] = row
            self._bytes += KEY_BYTES + len(key) + len(row[VALUE])
            if row[HOLDER]:
                self._held.setdefault(row[HOLDER], set()).add(key)
            self._keys.changed(key, old, index)
        self._state.index = index
        self.watches.key_changed(key)

    def _clear(
        self, prefix: str, changes: Mapping[str, Row | None], index: int
    ) -> None:
        """Remove all keys under *prefix* but those that *changes* write.

        It is one step, however many keys there are. So all work that can be done for
        all keys together is not done for each.
        """
        keys, kept = self._keys.candidates(prefix), set[str]()
        if changes:
            rows = self._state.rows
            kept = {k for k in keys if changes.get(k) is not None and k in rows}
            keys = [key for key in keys if key not in kept]
        for capture in self._captures:
            capture.keep_many(keys)
        take, size, found = self._state.rows.pop, 0, list[str]()
        for key in keys:
            row = take(key, None)
            if row is not None:
                found.append(key)
                size += len(key) + len(row[VALUE])
                if row[HOLDER]:
                    self._let_go(row[HOLDER], key)
        if found:
            self._bytes -= size + KEY_BYTES * len(found)
            self._keys.removed_many(prefix, found, kept, index)
            self._state.index = index
            self.watches.keys_changed(prefix, found)

    def _keep(self, key: str, old: Row) -> None:
        """Keep *old*, the record of *key*, for all captures before it is replaced."""
        for capture in self._captures:
            capture.keep(key, old)

    def _let_go(self, session: str, key: str) -> None:
        """Note that *session* no longer holds *key*."""
        held = self._held[session]
        held.discard(key)
        if not held:
            del self._held[session]

    def _sessions_changed(self, index: int, ids: Sequence[str]) -> None:
        self._state.session_index = index
        self.watches.sessions_changed(ids)


class BackupReader:
    """Reads a backup while its pieces come, so that the last piece has little to do.

    A fault is reported only with the last piece, on every replica: a replica that
    started from a snapshot in between has read the first pieces at another moment.
    """

    def __init__(self) -> None:
        self._reader = StateReader()
        self._error: DataCorrupted | FormatTooNew | UpgradeNeeded | None = None

    def feed(self, piece: bytes) -> None:
        """Read a piece."""
        if self._error is None:
            try:
                self._reader.feed(piece)
            except (DataCorrupted, FormatTooNew, UpgradeNeeded) as error:
                self._error = error

    def finish(self) -> State:
        """Return the state in the backup. Raises: ApplicationError, CommandTooNew"""
        try:
            if self._error is not None:
                raise self._error
            return self._reader.finish()
        except DataCorrupted as error:
            raise ApplicationError(f"the backup is damaged: {error}") from error
        except (FormatTooNew, UpgradeNeeded) as error:
            raise CommandTooNew(str(error)) from error


def _nothing() -> None:
    """Do nothing."""


def _always(_index: int) -> bool:
    """Count every answer as awaited."""
    return True


def size_of(state: State) -> int:
    """Return the bytes of memory for *state*, as `KeyValueFSM.state_bytes` counts."""
    rows, sessions = state.rows, state.sessions
    size = KEY_BYTES * len(rows) + sum(map(len, rows))
    size += sum(len(row[VALUE]) for row in rows.values())
    return size + sum(map(_session_size, sessions.values()))


def _session_size(session: Session) -> int:
    written = 0 if session.written is None else session.written.characters
    return SESSION_BYTES + len(session.name) + len(session.node) + written


def _digest(command: Command) -> bytes:
    """Return a digest that tells *command* from the others of its client.

    It leaves out the id and the node of a new session: each server that a client asks
    draws a new id, and may put in its own node, so they differ in a repetition.
    """
    if isinstance(command, CreateSession):
        command = replace(command, id="", node="")
    return hashlib.blake2b(encode(command), digest_size=DIGEST_BYTES).digest()


def _nothing_of(_item: object) -> None:
    """Do nothing."""


def _locks(rows: Mapping[str, Row]) -> dict[str, set[str]]:
    """Return the keys that each session holds."""
    held: dict[str, set[str]] = {}
    for key, row in rows.items():
        if row[HOLDER]:
            held.setdefault(row[HOLDER], set()).add(key)
    return held


def _restored(row: Row, current: Row | None, index: int) -> Row:
    value, flags, _, _, lock_index, session = row
    if current is not None:
        lock_index = max(lock_index, current[LOCK_INDEX])
    return (value, flags, index, index, lock_index, session)


def _unpack_answer(packed: bytes) -> object:
    answer: Any = msgpack.unpackb(packed)
    if type(answer) is not list:
        return answer
    records, errors = answer
    return TransactionResult(
        [Record(*each) for each in records],
        [OperationError(*each) for each in errors],
    )


_VERBS: dict[type, Callable[..., object]] = {
    Put: KeyValueFSM._put,
    Delete: KeyValueFSM._delete,
    Advertise: KeyValueFSM._advertise,
    Transact: KeyValueFSM._transact,
    CreateSession: KeyValueFSM._create_session,
    DestroySessions: KeyValueFSM._destroy_sessions,
    EndDelays: KeyValueFSM._end_delays,
    Once: KeyValueFSM._once,
    Restore: KeyValueFSM._restore,
}


def _freed(rows: dict[str, Row], captures: Sequence[Capture]) -> Iterator[bool]:
    """Free *rows*, which nobody reads but *captures*, in turns of bounded length.

    To free them all at once takes long, too.
    """
    while rows:
        yield True
        last = list(islice(reversed(rows), TURN_KEYS))
        for capture in captures:
            if not capture.is_released:
                capture.keep_many(last)
        for key in last:
            del rows[key]
