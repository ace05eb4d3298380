"""The list of members for bootstrap, and for humans to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from txraft.errors import StorageError
from txraft.storage.directory import PEERS_NAME
from txraft.storage.filesystem import (
    FileSystem,
    OsFileSystem,
    create_whole,
    read_whole,
)
from txraft.storage.gojson import dump_json, load_json

MAX_PEERS_BYTES = 1 << 20


class StaticPeers:
    """A `PeerStore` in memory."""

    def __init__(self, peers: Iterable[str] = ()) -> None:
        self._peers = tuple(peers)

    def peers(self) -> list[str]:
        """Return the addresses of all members, this node included."""
        return list(self._peers)

    def set_peers(self, peers: Sequence[str]) -> None:
        """Replace the list."""
        self._peers = tuple(peers)


class JSONPeers:
    """A `PeerStore` in the file `peers.json` in the directory *path*.

    It is a JSON list of addresses, as the seed's peers write it.
    """

    def __init__(self, path: Path | str, fs: FileSystem | None = None) -> None:
        self._path = Path(path) / PEERS_NAME
        self._fs = fs or OsFileSystem()

    def peers(self) -> list[str]:
        """Return the addresses of all members, [] when the file is missing or empty.

        Raises: StorageError for anything but a list of addresses.
        """
        try:
            data = read_whole(self._fs, self._path, MAX_PEERS_BYTES)
        except FileNotFoundError:
            return []
        if len(data) > MAX_PEERS_BYTES:
            raise self._refusal(f"it is larger than {MAX_PEERS_BYTES} bytes")
        if not data.strip():
            return []
        try:
            peers = load_json(data)
        except ValueError as error:
            raise self._refusal(str(error)) from error
        if not isinstance(peers, list):
            raise self._refusal("it is not a list")
        if not all(isinstance(peer, str) and peer for peer in peers):
            raise self._refusal("it has an item that is not an address")
        if len(set(peers)) < len(peers):
            raise self._refusal("it names a peer twice")
        return peers

    def set_peers(self, peers: Sequence[str]) -> None:
        """Replace the list. Durable: when this returns."""
        create_whole(self._fs, self._path, dump_json(list(peers)))

    def _refusal(self, what: str) -> StorageError:
        return StorageError(
            f'{self._path}: {what}; write a JSON list such as ["127.0.0.1:8300"], or '
            "remove the file for no peers"
        )
