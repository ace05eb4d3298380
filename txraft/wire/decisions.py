"""Decisions of a leader for its cluster, encoded as the data of a no-op entry.

A no-op of hashicorp/raft has no data. Peers that do not know a decision, hashicorp/raft
and older versions of this package, store the entry and skip it like any other no-op.
"""

from __future__ import annotations

from txraft.wire.membership import address_from_bytes, address_to_bytes

LEVEL_PREFIX = b"txraft-level:"
VOID_PREFIX = b"txraft-void:"

MAX_INCARNATION_BYTES = 64
"""Incarnations of other members may have up to this length; ours have 16."""

MAX_LEVEL = 2**31 - 1


def encode_activation(level: int) -> bytes:
    """Encode that *level* of the state machine is active from this entry on."""
    assert 0 < level <= MAX_LEVEL, "there is nothing to activate at level 0"
    return LEVEL_PREFIX + b"%d" % level


def activated_level(data: bytes) -> int:
    """Return the level that a no-op with *data* activates, 0 for none."""
    # The length is bounded before `int`: this is data of a peer.
    digits = data[len(LEVEL_PREFIX) :]
    if not data.startswith(LEVEL_PREFIX) or not digits.isdigit() or len(digits) > 10:
        return 0
    level = int(digits)
    return level if level <= MAX_LEVEL else 0


def encode_void(peer: str, incarnation: bytes) -> bytes:
    """Encode that the *incarnation* of the member at *peer* is void.

    It has forgotten its votes and entries, so no member accepts its messages any more.
    """
    assert 0 < len(incarnation) <= MAX_INCARNATION_BYTES, "longer ones are not accepted"
    size = len(incarnation).to_bytes(1, "big")
    return VOID_PREFIX + size + incarnation + address_to_bytes(peer)


def voided_incarnation(data: bytes) -> tuple[str, bytes]:
    """Return the member and the incarnation that a no-op with *data* declares void.

    Both are empty if it declares none.
    """
    if not data.startswith(VOID_PREFIX):
        return "", b""
    size, said = data[len(VOID_PREFIX) :][:1], data[len(VOID_PREFIX) + 1 :]
    length = int.from_bytes(size, "big")
    if not 0 < length <= MAX_INCARNATION_BYTES or len(said) <= length:
        return "", b""
    return address_from_bytes(said[length:]), said[:length]
