"""The targets: each takes bytes, and raises only when something is wrong."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.support.go_captures import KINDS, messages
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.messages import Request
from txraft.errors import ConfigError, ProtocolError, StorageError
from txraft.settings.settings import load_settings
from txraft.storage.filelog import FileLog
from txraft.storage.segment import segment_name
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.testing.fullstack.disk import SimulatedDisk, Survival
from txraft.wire.entries import decode_entry, encode_entry, encode_new
from txraft.wire.requests import encode_request
from txraft.wire.stream import RequestReader, ResponseReader

Target = Callable[[bytes], None]

DATA = Path("/data")
LOG = DATA / "log"
SEGMENT = LOG / segment_name(1)
STATE = DATA / "state"
MEMBERS = Configuration.of_voters(("n1", "n2", "n3"))
CONTENT = b"the state of a machine, " * 20
ENTRIES = 12
LAST_WRITE = 3
"""Entries that the newest write of the log brought: all that may be taken for torn."""

NODE_YAML = b"""data_dir: ./data/n1
id: n1
store: file
log_level: info
listen: tcp:8300:interface=127.0.0.1
advertise: 127.0.0.1:8300
peers: [127.0.0.1:8300, {id: n2, address: 127.0.0.1:8310}]
http: {listen: tcp:8500:interface=127.0.0.1, advertise: http://127.0.0.1:8500}
raft: {heartbeat_timeout: 1s, election_timeout: 1500ms, protocol_version: 3}
limits: {}
"""


def requests(data: bytes) -> None:
    """Read requests from a peer, in pieces whose size the first byte says."""
    reader, step = RequestReader(), max(1, data[0] if data else 1)
    try:
        for start in range(1, len(data), step):
            reader.feed(data[start : start + step])
            while _has_no_body_left(reader):
                request = reader.read()
                if request is None:
                    break
                _check_is_written_as_read(request)
    except ProtocolError:
        pass


def _has_no_body_left(reader: RequestReader) -> bool:
    """Take what has arrived of a snapshot, and tell whether that is all of it."""
    while reader.body_left and reader.read_body(1 << 16):
        pass
    return not reader.body_left


def _check_is_written_as_read(request: Request) -> None:
    """Assert that what was read can be written, and that is read as the same."""
    written, again = encode_request(request), RequestReader()
    again.feed(written)
    read = again.read()
    assert read is not None, "what was written is whole"
    assert encode_request(read) == written, "what is written is read as it was"


def responses(data: bytes) -> None:
    """Read answers of a peer, to requests of a kind that the first byte says."""
    reader, kind = ResponseReader(), (data[0] if data else 0) % 5
    try:
        reader.feed(data[1:])
        while reader.read(kind) is not None:
            pass
    except ProtocolError:
        pass


def entry(data: bytes) -> None:
    """Decode one entry of a log, as it stands behind a checksum that is right."""
    with contextlib.suppress(ProtocolError):
        found = decode_entry(data)
        written = encode_entry(found)
        assert encode_entry(decode_entry(written)) == written, "it is read as written"


def log(data: bytes) -> None:
    """Open a log whose only segment holds anything."""
    disk = good_disk()
    disk.file(SEGMENT).data[:] = data
    with contextlib.suppress(StorageError):
        _entries_on(disk)


def edited_log(data: bytes) -> None:
    """Open a log that was edited: one byte may cost no more than the newest write."""
    disk = good_disk()
    edit(disk.file(SEGMENT).data, data)
    try:
        found = _entries_on(disk)
    except StorageError:
        return
    whole = _entries_on(good_disk())
    assert found == whole[: len(found)], "entries are as they were written"
    # Of several broken writes without a whole one behind them all may be torn.
    assert len(data) != 3 or len(found) >= ENTRIES - LAST_WRITE, (
        "older writes are not lost in silence"
    )


def edited_snapshot(data: bytes) -> None:
    """Open a snapshot of which a file was edited, which one the first byte says."""
    disk = good_disk()
    store = FileSnapshotStore(DATA, 2, disk)
    [meta] = store.list()
    name = "state.bin" if data[:1] < b"\x80" else "meta.json"
    edit(disk.file(DATA / "snapshots" / meta.id / name).data, data[1:])
    try:
        for found in store.list():
            with store.open(found.id)[1] as file:
                assert file.read() == CONTENT, "a snapshot is whole"
    except StorageError:
        pass


def snapshot_description(data: bytes) -> None:
    """List snapshots of which one describes itself as anything."""
    disk = good_disk()
    store = FileSnapshotStore(DATA, 2, disk)
    [meta] = store.list()
    disk.file(DATA / "snapshots" / meta.id / "meta.json").data[:] = data
    try:
        for found in store.list():
            store.open(found.id)[1].close()
    except StorageError:
        pass


def edited_state(data: bytes) -> None:
    """Open term and vote after an edit: they are as they were, or refused."""
    disk = good_disk()
    edit(disk.file(STATE).data, data)
    try:
        term = FileStableStore(STATE, "n1", disk).get_uint64(b"CurrentTerm")
    except StorageError:
        return
    assert term == 7, "a term is as it was written"


def settings(data: bytes) -> None:
    """Load settings that may be anything."""
    path = Path(_directory().name, "node.yaml")
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load_settings(str(path))


TARGETS: dict[str, Target] = {
    "requests": requests,
    "responses": responses,
    "entry": entry,
    "log": log,
    "edited_log": edited_log,
    "edited_snapshot": edited_snapshot,
    "snapshot_description": snapshot_description,
    "edited_state": edited_state,
    "settings": settings,
}


def samples(target: str) -> list[bytes]:
    """Return inputs to begin with."""
    disk = good_disk()
    match target:
        case "requests":
            found = [b"\xff" + bytes.fromhex(m["hex"]) for _, m in messages("request")]
        case "responses":
            found = [
                bytes([KINDS[m["rpc"]]]) + bytes.fromhex(m["hex"])
                for _, m in messages("response")
            ]
        case "entry":
            found = [_entry(index).encoded for index in range(1, ENTRIES + 1)]
        case "log":
            found = [bytes(disk.file(SEGMENT).data)]
        case "snapshot_description":
            [meta] = FileSnapshotStore(DATA, 2, disk).list()
            path = DATA / "snapshots" / meta.id / "meta.json"
            found = [bytes(disk.file(path).data)]
        case "settings":
            found = [NODE_YAML]
        case _:
            found = [b"\x00\x00\x01", b"\x01\x00\xff\x00\x03"]
    return found


def edit(content: bytearray, edits: bytes) -> None:
    """Change *content* as *edits* says, by three bytes each: where, and to what.

    A last edit of two bytes cuts the content there.
    """
    for place, value in _edits(edits):
        at = place % (len(content) + 1)
        if value is None:
            del content[at:]
        elif at < len(content):
            content[at] = value


def _edits(edits: bytes) -> Iterator[tuple[int, int | None]]:
    for start in range(0, len(edits) - 1, 3):
        piece = edits[start : start + 3]
        yield int.from_bytes(piece[:2], "big"), piece[2] if len(piece) == 3 else None


def _entry(index: int) -> Entry:
    """Make an entry, now and then one of another type."""
    entry = Entry(index, 1 + index // 5, LogType.COMMAND, b"command %d" % index)
    if index % 5 == 0:
        entry = Entry(index, 1 + index // 5, LogType.NOOP, cluster=bytes(16))
    elif index % 7 == 0:
        entry = Entry(
            index, 1 + index // 5, LogType.CONFIGURATION, configuration=MEMBERS
        )
    encode_new(entry, 1)
    return entry


@cache
def _made() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory(DATA)
    log = FileLog(LOG, "n1", disk, random_bytes=lambda size: bytes(range(size)))
    for first in range(1, ENTRIES + 1, LAST_WRITE):
        log.store_logs([_entry(index) for index in range(first, first + LAST_WRITE)])
    log.close()
    FileStableStore(STATE, "n1", disk).set_uint64(b"CurrentTerm", 7)
    store = FileSnapshotStore(DATA, 2, disk, milliseconds=lambda: 1_000)
    sink = store.create(4, 1, MEMBERS, 1)
    sink.write(CONTENT)
    sink.close()
    disk.sync_directory(DATA)
    disk.sync_directory(Path("/"))
    return disk


def good_disk() -> SimulatedDisk:
    """Return a copy of a disk on which all is well."""
    return _made().after_power_failure(Survival())


def _entries_on(disk: SimulatedDisk) -> list[tuple[int, int, bytes | None]]:
    log = FileLog(LOG, "n1", disk)
    last = log.last_index()
    found = log.get_logs(log.first_index(), last, 1 << 30) if last else []
    log.close()
    return [(entry.index, entry.term, entry.data) for entry in found]


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """Make a directory for as long as this process lives."""
    return tempfile.TemporaryDirectory(prefix="txraft-fuzz-")
