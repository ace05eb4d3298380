"""The key-value state machine: what the commands of the log add up to.

It knows nothing of consensus or HTTP, nor of time: a session ends, and a lock delay,
because a command says so. Limits on keys and values are checked before a command is
proposed, never here: replicas must agree whatever their settings are.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

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
from txraft.kv.keyindex import KeyIndex, Moment
from txraft.kv.once import DIGEST_BYTES
from txraft.kv.operations import Answer, View, read, run
from txraft.kv.records import (
    Delay,
    OperationError,
    Outcome,
    Record,
    Row,
    Session,
    Staged,
    State,
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
"""What a key takes in memory besides its name and value, about."""

SESSION_BYTES = 1000
"""What a session takes in memory besides its texts, about."""

TURN_KEYS = 2000
"""Keys of a backup that take their place in one turn: a millisecond or two."""

Later = Callable[[Callable[[], None]], object]


class KeyValueFSM:
    """The state machine behind the key-value node.

    Reads are for the reactor thread and see the state after the last command
    applied. `on_advertise` is called after each command that tells an HTTP address; a
    restore is not announced there. `on_activate` is called after each activation of a
    level. `on_restore` is called after a snapshot has replaced the state, in the thread
    that did it. `on_begun` is called with the id of each new session and with lock
    delays that have begun; as a call of the watches, and as `on_activate`, it comes in
    the middle of applying, and may note something down. `watches` tells of changes.
    `later`, if it is set, calls a function in another turn of the reactor: a large
    backup then takes its place in many of them, and everything else goes on.
    `is_awaited` tells whether somebody here waits for the answer to the entry at an
    index: where nobody does, as on followers and after a start, no answer is made.

    `catalog_index` grows when the catalog that this node shows changes; it is for
    whoever shows it, and no part of the state.

    It is a `LeveledFSM`: what came with `level` 1 is done only after `activate`. It is
    a `NamedFSM` too, and knows its own data.
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
        """Tell whether *data* may be a command of this application."""
        return is_command(data)

    def is_own_snapshot(self, head: bytes) -> bool:
        """Tell whether a snapshot that begins with *head* may be one of this."""
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
        """Iterate over the keys, in no order that means anything."""
        return iter(self._state.rows)

    @property
    def index(self) -> int:
        """The index of the last command that changed a key, 0 before the first."""
        return self._state.index

    @property
    def session_index(self) -> int:
        """The index of the last command that changed a session, 0 before it."""
        return self._state.session_index

    @property
    def sessions(self) -> Mapping[str, Session]:
        """All sessions by id, the oldest first."""
        return self._state.sessions

    @property
    def delays(self) -> Mapping[str, Delay]:
        """The keys that cannot be locked yet, and why."""
        return self._state.delays

    @property
    def delays_begun(self) -> DelaysBegun:
        """The lock delays by when they began."""
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
            # When one that is gone has ended is not known, but by then at the latest.
            return self.session_index if session is None else session.modify_index
        if topic.scope is Scope.CATALOG:
            return self.catalog_index
        keys = self._keys
        if topic.scope is Scope.KEY:
            row = keys.rows.get(topic.text)
            return keys.removed_at(topic.text) if row is None else row[3]
        return keys.changed_under(topic.text)

    def moment(self, prefix: str = "") -> Moment:
        """Show what is under *prefix* as it is now, until that is closed."""
        return self._keys.moment(prefix, self._state.index)

    def read(
        self, operations: Sequence[Operation], max_answer_bytes: int | None = None
    ) -> Generator[None, None, Outcome]:
        """Do a transaction that only reads, as of its first step, in short steps.

        Raises: TransactionTooLarge; MomentOver, if too much changes meanwhile.
        """
        most_keys = None if max_answer_bytes is None else MAX_VISITED_KEYS_3
        answer = Answer(max_answer_bytes, most_keys)
        return read(self._state, self._keys, operations, answer)

    def check_answer(self, operations: Sequence[Operation]) -> None:
        """Raise TransactionTooLarge if *operations* would be that, done just now.

        It is for whoever proposes them by the rules of level 0, which have no bounds.
        """
        view = View(self._state, self._keys, self._state.index)
        answer = Answer(MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3, wanted=False)
        run(view, operations, answer)

    def has_done(self, client: str, sequence: int) -> bool:
        """Tell whether a command of *client* under *sequence* is not done any more."""
        try:
            return self._state.results.find(client, sequence) is not None
        except ApplicationError:
            return True

    def http_url(self, address: str) -> str | None:
        """Return where the node at the peer *address* serves HTTP, if it said so."""
        return self._state.urls.get(address)

    def node_name(self, address: str) -> str:
        """Return the name of the node at the peer *address*: that, if none was told."""
        return self._state.names.get(address, address)

    def is_advertised(self, address: str, url: str, name: str) -> bool:
        """Tell whether just this is known of the node at *address*; "" is no name."""
        known = self.http_url(address), self.node_name(address)
        return known == (url, name or address)

    def catalog_changed(self) -> None:
        """Let the index of the catalog grow, and wake who waits for that.

        It is at least that of the last entry that changed a key, so that it hardly
        ever goes back when the node begins anew.
        """
        self.catalog_index = max(2, self.index, self.catalog_index + 1)
        self.watches.catalog_changed()

    @property
    def state_bytes(self) -> int:
        """What keys and sessions take in memory, about.

        A key counts `KEY_BYTES`, a byte for each character of it and each byte of its
        value; a session `SESSION_BYTES` and its texts.
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

    # What the node calls

    def apply(self, log: Entry) -> object:
        """Apply one command.

        Returns: an Outcome for a transaction, the id for a new session, else True; a
            Deferred of that for the last piece of a backup.
        """
        command = decode(log.data, self._state.level)
        return _VERBS[type(command)](self, log.index, command)

    def activate(self, level: int) -> None:
        """Do the commands of *level* and below from now on.

        Raises: UpgradeNeeded for a level that this code does not understand.
        """
        if level > LEVEL:
            raise UpgradeNeeded(level, LEVEL)
        self._state.level = max(level, self._state.level)
        self.on_activate()

    def apply_batch(self, logs: Sequence[Entry]) -> Sequence[object]:
        """Apply commands in order; a refusal takes the place of its answer.

        A Deferred is the last answer: what follows it has to wait.
        """
        answers: list[object] = []
        for log in logs:
            try:
                command = decode(log.data, self._state.level)
                answer = _VERBS[type(command)](self, log.index, command)
            except ApplicationError as refusal:
                answer = refusal
            answers.append(answer)
            if answer is not True and isinstance(answer, Deferred):
                break
        return answers

    def snapshot(self) -> KeyValueSnapshot:
        """Capture the state: its keys as they are now, and a copy of the rest.

        Until that is released, each command keeps what it changes as it was.
        """
        capture = self._keys.capture(self._state.index)
        self._captures = (*self._captures, capture)
        rest = self._state.copy_without_rows()
        return KeyValueSnapshot(rest, capture, lambda: self._release(capture))

    def _release(self, capture: Capture) -> None:
        """Keep nothing for *capture* any more; free what was kept, in turns."""
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
        Thread: snapshot. Nothing else happens to the state meanwhile.
        """
        self._become(read_state(source))
        self.on_restore()

    def _become(self, state: State, keys: KeyIndex | None = None) -> None:
        """Let *state* be the state, and *keys* its index if that is filled already."""
        if keys is None:
            keys = KeyIndex(state.rows, state.index)
            deque(keys.fill(), maxlen=0)
        self._held = _locks(state.rows)
        self._delays_begun = DelaysBegun(state.delays)
        self._keys = keys
        self._bytes = size_of(state)
        self._state = state
        # What was captured of the records before stays with them: none of them changes.
        self._captures = ()
        self._backup = BackupReader()
        for piece in state.staged.pieces if state.staged is not None else ():
            self._backup.feed(piece)

    # One function for each verb

    def _put(self, index: int, command: Put) -> bool:
        """Write the record; one that would not change keeps its ModifyIndex."""
        key = command.key
        rows = self._state.rows
        old: Row | None = rows.get(key)
        if old is None:
            rows[key] = (command.value, command.flags, index, index, 0, "")
            self._bytes += KEY_BYTES + len(key) + len(command.value)
        elif old[0] == command.value and old[1] == command.flags:
            return True
        else:
            if self._captures:
                self._keep(key, old)
            value, flags = command.value, command.flags
            rows[key] = (value, flags, old[2], index, old[4], old[5])
            self._bytes += len(value) - len(old[0])
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

    def _transact(self, index: int, command: Transact) -> Outcome:
        level = command.level
        wanted = self.is_awaited(index)
        most_bytes, most_keys = MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3
        answer = Answer(most_bytes, most_keys, wanted, lenient=not level)
        return self._run(index, command.operations, answer, level)

    def _run(
        self, index: int, operations: Sequence[Operation], answer: Answer, level: int
    ) -> Outcome:
        """Do *operations*; whatever refuses them does so before the first change."""
        view = View(self._state, self._keys, index)
        outcome = run(view, operations, answer, level)
        if not outcome.errors:
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
            command.name,
            command.node,
            command.lock_delay_ms,
            command.deletes,
            command.ttl_ms,
            index,
            index,
            command.written,
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
        """Take its locks from a session that ended, and begin their lock delays."""
        keys = sorted(self._held.pop(id, ()))
        if not keys:
            return
        for capture in self._captures:
            capture.keep_many(keys)
        # It is one step however many there are, as the deletion of a tree is.
        rows = self._state.rows
        olds = [rows[key] for key in keys]
        if session.deletes:
            for key in keys:
                del rows[key]
            self._bytes -= KEY_BYTES * len(keys) + sum(map(len, keys))
            self._bytes -= sum(len(old[0]) for old in olds)
            self._keys.removed_each(keys, olds, index)
        else:
            for key, old in zip(keys, olds, strict=True):
                rows[key] = (old[0], old[1], old[2], index, old[4], "")
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
        # What was done by the rules of level 0 has no digest, and by them a repetition
        # is not compared: replicas that know no better have to agree.
        digest = _digest(inner) if command.level else b""
        known = results.find(client, sequence, digest)
        if known is not None:
            return _unpack_answer(known)
        if isinstance(inner, Transact):
            answer: object = self._transact_once(index, inner)
        else:
            answer = _VERBS[type(inner)](self, index, inner)
        packed: bytes = msgpack.packb(
            [answer.records, answer.errors] if isinstance(answer, Outcome) else answer
        )
        results.remember(client, sequence, packed, digest)
        return answer

    def _transact_once(self, index: int, command: Transact) -> Outcome:
        """Do a transaction whose answer becomes part of the state, so it is made."""
        if not command.level:
            answer = Answer(None, None)
        else:
            answer = Answer(MAX_ANSWER_BYTES_3, MAX_VISITED_KEYS_3)
        return self._run(index, command.operations, answer, command.level)

    def _restore(self, index: int, command: Restore) -> bool | Deferred[object]:
        """Keep a piece; one that does not follow the last is refused."""
        staged = self._state.staged
        if command.offset == 0:
            staged = Staged(command.id, command.total, 0, ())
            self._backup = BackupReader()
        expected = (command.id, command.total, command.offset)
        if staged is None or staged[:3] != expected:
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
        """Replace the state by the backup that is complete, at once or in turns.

        Until it is done the state is that before the last piece.
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
        """Put *backup* into the place of the state, in turns of bounded length.

        All that comes from it counts as changed at *index*, as its own indexes belong
        to another history; a key's LockIndex never falls, because holders of locks are
        told apart by it. Addresses, names and first results stay those of this cluster.
        """
        now, rows, captures = self._state, backup.rows, self._captures
        for count, (key, row) in enumerate(rows.items(), 1):
            rows[key] = _restored(row, now.rows.get(key), index)
            if not count % TURN_KEYS:
                yield True
        sessions = {
            id: session._replace(
                create_index=index,
                modify_index=index,
                # No snapshot of level 0 could tell it.
                written=session.written if now.level else None,
            )
            for id, session in backup.sessions.items()
        }
        delays = {key: d._replace(begun=index) for key, d in backup.delays.items()}
        keys = KeyIndex(rows, index)
        for _ in keys.fill():
            yield True
        self._keys.end_moments()
        state = State(
            rows,
            now.urls,
            index,
            index,
            sessions,
            delays,
            now.results,
            level=now.level,
            names=now.names,
        )
        self._become(state, keys)
        self.watches.everything_changed()
        while now.rows:  # nobody sees them any more, and to free them takes long, too
            yield True
            last = list(islice(reversed(now.rows), TURN_KEYS))
            for capture in captures:
                if not capture.is_released:
                    capture.keep_many(last)
            for key in last:
                del now.rows[key]

    # Changes

    def _set(self, key: str, row: Row | None, index: int) -> None:
        """Let *row* be the record of *key*, or none; keep what is derived in step."""
        rows = self._state.rows
        old = rows.get(key)
        if row is old:
            return
        if old is not None:
            if self._captures:
                self._keep(key, old)
            self._bytes -= KEY_BYTES + len(key) + len(old[0])
            if old[5]:
                self._let_go(old[5], key)
        if row is None:
            assert old is not None, "what is not there is not changed to nothing"
            del rows[key]
            self._keys.removed(key, old, index)
        else:
            rows[key] = row
            self._bytes += KEY_BYTES + len(key) + len(row[0])
            if row[5]:
                self._held.setdefault(row[5], set()).add(key)
            self._keys.changed(key, old, index)
        self._state.index = index
        self.watches.key_changed(key)

    def _clear(
        self, prefix: str, changes: Mapping[str, Row | None], index: int
    ) -> None:
        """Remove all keys under *prefix* but those that *changes* makes anew.

        It is one step however many there are, so nothing is done for each key that can
        be done for all of them.
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
                size += len(key) + len(row[0])
                if row[5]:
                    self._let_go(row[5], key)
        if found:
            self._bytes -= size + KEY_BYTES * len(found)
            self._keys.removed_many(prefix, found, kept, index)
            self._state.index = index
            self.watches.keys_changed(prefix, found)

    def _keep(self, key: str, old: Row) -> None:
        """Keep *old*, the record of *key*, for captures, before it is changed."""
        for capture in self._captures:
            capture.keep(key, old)

    def _let_go(self, session: str, key: str) -> None:
        """Note that *session* does not hold *key* any more."""
        held = self._held[session]
        held.discard(key)
        if not held:
            del self._held[session]

    def _sessions_changed(self, index: int, ids: Sequence[str]) -> None:
        self._state.session_index = index
        self.watches.sessions_changed(ids)


class BackupReader:
    """Reads a backup while its pieces come, so that the last one finds it read.

    What is wrong with it is told at the end, as all replicas must: one that began
    with a snapshot in between has read the pieces at other moments.
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
        """Return what all pieces make. Raises: ApplicationError, CommandTooNew"""
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
    """Make each answer."""
    return True


def size_of(state: State) -> int:
    """Return what *state* takes in memory, as `KeyValueFSM.state_bytes` counts it."""
    rows, sessions = state.rows, state.sessions
    size = KEY_BYTES * len(rows) + sum(map(len, rows))
    size += sum(len(row[0]) for row in rows.values())
    return size + sum(map(_session_size, sessions.values()))


def _session_size(session: Session) -> int:
    written = 0 if session.written is None else session.written.characters
    return SESSION_BYTES + len(session.name) + len(session.node) + written


def _digest(command: Command) -> bytes:
    """Return what tells *command* from others that its client has sent.

    The id of a new session is drawn anew by whoever proposes it, and its node may be
    that of the server that was asked: a repetition has others.
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
        if row[5]:
            held.setdefault(row[5], set()).add(key)
    return held


def _restored(row: Row, current: Row | None, index: int) -> Row:
    value, flags, _, _, lock_index, session = row
    if current is not None:
        lock_index = max(lock_index, current[4])
    return (value, flags, index, index, lock_index, session)


def _unpack_answer(packed: bytes) -> object:
    answer: Any = msgpack.unpackb(packed)
    if type(answer) is not list:
        return answer
    records, errors = answer
    return Outcome(
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
