"""Stores of the list of members, for bootstrap and for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from txraft.core.configuration import Server, Suffrage
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

    It is a JSON list of addresses, as hashicorp/raft writes it, or, from protocol
    version 3 on, a list of objects with `id`, `address` and perhaps `non_voter`.
    Both `peers` and `servers` read both forms.
    """

    def __init__(self, path: Path | str, fs: FileSystem | None = None) -> None:
        self._path = Path(path) / PEERS_NAME
        self._fs = fs or OsFileSystem()

    def peers(self) -> list[str]:
        """Return the addresses of all members, [] when the file is missing or empty.

        Raises: StorageError for anything but a list of members.
        """
        return [server.address for server in self.servers()]

    def servers(self) -> list[Server]:
        """Return all members, [] when the file is missing or empty.

        A member that is listed only by its address is a voter with the address as its
        id.
        Raises: StorageError for anything but a list of members.
        """
        try:
            data = read_whole(self._fs, self._path, MAX_PEERS_BYTES)
        except FileNotFoundError:
            return []
        if len(data) > MAX_PEERS_BYTES:
            raise self._refusal(f"it is larger than {MAX_PEERS_BYTES} bytes")
        # An empty file means no peers, as in hashicorp/raft.
        if not data.strip():
            return []
        try:
            peers = load_json(data)
        except ValueError as error:
            raise self._refusal(str(error)) from error
        if not isinstance(peers, list):
            raise self._refusal("it is not a list")
        try:
            servers = [_server_of(peer) for peer in peers]
        except ValueError as error:
            raise self._refusal(str(error)) from error
        addresses = {server.address for server in servers}
        ids = {server.id for server in servers}
        if len(addresses) < len(servers) or len(ids) < len(servers):
            raise self._refusal("it names a peer twice")
        return servers

    def set_peers(self, peers: Sequence[str]) -> None:
        """Replace the list by *peers*, as addresses. Durable: when this returns."""
        create_whole(self._fs, self._path, dump_json(list(peers)))

    def set_servers(self, servers: Sequence[Server]) -> None:
        """Replace the list by *servers*, as objects. Durable: when this returns."""
        listed = [
            {
                "id": server.id,
                "address": server.address,
                "non_voter": server.suffrage is not Suffrage.VOTER,
            }
            for server in servers
        ]
        create_whole(self._fs, self._path, dump_json(listed))

    def _refusal(self, what: str) -> StorageError:
        return StorageError(
            f'{self._path}: {what}; write a JSON list such as ["127.0.0.1:8300"], or '
            "remove the file for no peers"
        )


def _server_of(item: object) -> Server:
    if isinstance(item, str) and item:
        return Server(item, item)
    if not isinstance(item, dict):
        raise ValueError("it has an item that is neither an address nor an object")
    id, address = item.get("id"), item.get("address")
    if not (isinstance(id, str) and id and isinstance(address, str) and address):
        raise ValueError("it has an object without id or address")
    non_voter = item.get("non_voter", False)
    if not isinstance(non_voter, bool):
        raise ValueError(f"non_voter of {id} is neither true nor false")
    return Server(id, address, Suffrage.NONVOTER if non_voter else Suffrage.VOTER)
