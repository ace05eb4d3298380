"""Encodes peer lists and configurations, for entries, requests and snapshots.

Both are msgpack inside a byte string. A peer list names voters by address; a
configuration also has ids and servers without a vote. The order is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgpack

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.errors import ProtocolError

_PACK = msgpack.Packer(use_bin_type=False).pack
_SUFFRAGES = {int(suffrage): suffrage for suffrage in Suffrage}


def address_to_bytes(address: str) -> bytes:
    """Turn an address into the bytes that name it on the wire."""
    return address.encode("utf-8", "surrogateescape")


def address_from_bytes(data: bytes) -> str:
    """Turn bytes of the wire into text, without loss: it encodes to the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def encode_peers(addresses: Iterable[str]) -> bytes:
    """Encode a peer list."""
    packed: bytes = _PACK([address_to_bytes(address) for address in addresses])
    return packed


def decode_peers(data: bytes) -> tuple[str, ...]:
    """Decode a peer list; nil counts as an empty list.

    Raises: ProtocolError when *data* is anything else, or names a peer twice.
    """
    peers = _unpack(data, "a peer list")
    if peers is None:
        return ()
    if not isinstance(peers, list) or not all(isinstance(p, bytes) for p in peers):
        raise ProtocolError("a peer list is not a list of byte strings")
    _refuse_repeats(peers, "a peer list")
    return tuple(address_from_bytes(peer) for peer in peers)


def encode_configuration(configuration: Configuration) -> bytes:
    """Encode a configuration, with ids and suffrage."""
    servers = [
        {
            b"Address": address_to_bytes(server.address),
            b"ID": address_to_bytes(server.id),
            b"Suffrage": int(server.suffrage),
        }
        for server in configuration.servers
    ]
    # Go writes an empty slice that was never set as nil.
    packed: bytes = _PACK({b"Servers": servers or None})
    return packed


def decode_configuration(data: bytes) -> Configuration:
    """Decode a configuration.

    Raises: ProtocolError when *data* is anything else, has a suffrage that does not
        exist, or names a server twice.
    """
    value = _unpack(data, "a configuration")
    listed = value.get(b"Servers") if isinstance(value, dict) else 0
    if listed is None:
        return Configuration()
    if not isinstance(listed, list):
        raise ProtocolError("a configuration is not a map with a list of servers")
    servers = tuple(_decode_server(item) for item in listed)
    _refuse_repeats([server.address for server in servers], "a configuration")
    _refuse_repeats([server.id for server in servers], "a configuration")
    return Configuration(servers)


def _decode_server(item: object) -> Server:
    if not isinstance(item, dict):
        raise ProtocolError("a server in a configuration is not a map")
    id, address = item.get(b"ID"), item.get(b"Address")
    suffrage = item.get(b"Suffrage") or 0  # missing and nil are zero in Go: a voter
    if not isinstance(id, bytes) or not isinstance(address, bytes):
        raise ProtocolError("a server in a configuration has no id or no address")
    if type(suffrage) is not int or suffrage not in _SUFFRAGES:
        raise ProtocolError("a server has a suffrage that does not exist")
    return Server(
        address_from_bytes(id), address_from_bytes(address), _SUFFRAGES[suffrage]
    )


def _unpack(data: bytes, what: str) -> object:
    try:
        return msgpack.unpackb(data, raw=True, strict_map_key=False)
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"{what} is not msgpack: {type(error).__name__}") from error


def _refuse_repeats(names: list[bytes] | list[str], what: str) -> None:
    if not all(names):
        raise ProtocolError(f"{what} has a server without a name")
    if len(set(names)) < len(names):
        raise ProtocolError(f"{what} names a server twice")


def encode_peer(peer: str) -> bytes:
    """Turn an address into the bytes that name it on the wire."""
    return address_to_bytes(peer)


def decode_peer(data: bytes) -> str:
    """Turn the bytes on the wire into an address that turns back into them."""
    return address_from_bytes(data)


def add_unique_peer(peers: Sequence[str], peer: str) -> list[str]:
    """Return *peers* with *peer* at the end, unless it is among them.

    Source: hashicorp/raft `peer.go`, as the next two.
    """
    return [*peers] if peer in peers else [*peers, peer]


def exclude_peer(peers: Sequence[str], peer: str) -> list[str]:
    """Return *peers* without *peer*, however often it is among them."""
    return [other for other in peers if other != peer]


def peer_contained(peers: Sequence[str], peer: str) -> bool:
    """Tell whether *peer* is among *peers*."""
    return peer in peers
