"""Peers as addresses: their bytes, and lists of them.

Source: hashicorp/raft `peer.go` and `EncodePeer`, `DecodePeer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from txraft.wire.membership import address_from_bytes, address_to_bytes


def encode_peer(peer: str) -> bytes:
    """Turn an address into the bytes that name it on the wire."""
    return address_to_bytes(peer)


def decode_peer(data: bytes) -> str:
    """Turn the bytes on the wire into an address that turns back into them."""
    return address_from_bytes(data)


def add_unique_peer(peers: Sequence[str], peer: str) -> list[str]:
    """Return *peers* with *peer* at the end, unless it is among them."""
    return [*peers] if peer in peers else [*peers, peer]


def exclude_peer(peers: Sequence[str], peer: str) -> list[str]:
    """Return *peers* without *peer*, however often it is among them."""
    return [other for other in peers if other != peer]


def peer_contained(peers: Sequence[str], peer: str) -> bool:
    """Tell whether *peer* is among *peers*."""
    return peer in peers
