"""A node's data directory, which one process at a time may use."""

from __future__ import annotations

import os
from pathlib import Path

from txraft.errors import DirectoryLocked, StorageError
from txraft.storage.filesystem import (
    TEMPORARY_SUFFIX,
    File,
    FileSystem,
    OsFileSystem,
    in_the_way,
    make_directories,
    make_private,
    read_whole,
)

LOCK_NAME = "lock"
LOG_NAME = "log"
LMDB_NAME = "lmdb"
SNAPSHOTS_NAME = "snapshots"
STATE_NAME = "state"
HINT_NAME = "state.hint"
PEERS_NAME = "peers.json"

_MAX_PID_BYTES = 20
OURS = frozenset(
    {
        LOG_NAME,
        LMDB_NAME,
        SNAPSHOTS_NAME,
        STATE_NAME,
        HINT_NAME,
        PEERS_NAME,
        LOCK_NAME,
    }
)


class DataDirectory:
    """The directory *path*, with mode 0700 and locked until `close`.

    Its parts are paths: *log* for `FileLog`, *state* for `FileStableStore`, or *lmdb*
    for `LMDBStore` in place of both; *snapshots* and *peers* are inside *path*, which
    their stores take. The lock file names *process_id*, by default this process.
    Raises: DirectoryLocked when another process has locked it; StorageError when a part
        of it is a symbolic link, which could lead out of it; PermissionError when other
        users may change it and this user cannot forbid that.
    Durable: the directory, its *log* and its *snapshots*.
    """

    def __init__(
        self,
        path: Path | str,
        node_name: str,
        fs: FileSystem | None = None,
        process_id: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.node_name = node_name
        self.file_system: FileSystem = fs or OsFileSystem()
        self.log = self.path / LOG_NAME
        self.snapshots = self.path / SNAPSHOTS_NAME
        self.state = self.path / STATE_NAME
        self.lmdb = self.path / LMDB_NAME
        self.peers = self.path / PEERS_NAME
        make_directories(self.file_system, self.path)
        # In this order: nobody else may put a link there once it is private, and no
        # file of ours is opened, not even the lock, before links are refused.
        if fs is None:
            make_private(self.path)
        self._refuse_links()
        self._lock = self._take_lock(process_id or os.getpid())
        try:
            self._prepare()
        except Exception:
            self._lock.close()
            raise

    def close(self) -> None:
        """Release the lock; idempotent."""
        self._lock.close()

    def _refuse_links(self) -> None:
        for name in self.file_system.list(self.path):
            path = self.path / name
            if name in OURS and self.file_system.is_symlink(path):
                raise StorageError(
                    f"{path}: a symbolic link is refused in a data directory; put "
                    "what it points to in its place, or give the node another"
                )

    def _take_lock(self, process_id: int) -> File:
        path = self.path / LOCK_NAME
        try:
            lock = self.file_system.lock(path)
        except BlockingIOError as error:
            owner = self._owner(path)
            raise DirectoryLocked(
                f"{self.path}: the data directory is in use by {owner}; stop it, or "
                "give this node another data directory"
            ) from error
        # Only for people and messages: the lock is the kernel's, and ends with the
        # process however that ends. The file stays, as to remove it would let two
        # processes lock two files of one name.
        lock.truncate(0)
        lock.write_at(b"%d\n" % process_id, 0)
        return lock

    def _owner(self, path: Path) -> str:
        pid = read_whole(self.file_system, path, _MAX_PID_BYTES).strip()
        return f"process {int(pid)}" if pid.isdigit() else "another process"

    def _prepare(self) -> None:
        for name in (STATE_NAME, PEERS_NAME):
            unfinished = self.path / (name + TEMPORARY_SUFFIX)
            if self.file_system.is_directory(unfinished):
                raise in_the_way(unfinished)
            # A crash came before it got its name, so nobody was told of what it holds.
            if self.file_system.exists(unfinished):
                self.file_system.unlink(unfinished)
        for directory in (self.log, self.snapshots):
            if not self.file_system.exists(directory):
                self.file_system.make_directory(directory)
        # Before anything is written into them: what is synced in a directory whose own
        # name is lost is lost with it.
        self.file_system.sync_directory(self.path)
