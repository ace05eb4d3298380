"""What a leader decides for its cluster, as the data of a no-op.

Go peers, and versions of this package that do not know a decision, store such an entry
and skip it, as they do with every no-op; theirs have no data.
"""

from __future__ import annotations

from txraft.wire.membership import address_from_bytes, address_to_bytes

LEVEL_PREFIX = b"txraft-level:"
VOID_PREFIX = b"txraft-void:"

MAX_INCARNATION_BYTES = 64
"""Of those that are heard; ours have 16."""

MAX_LEVEL = 2**31 - 1


def encode_activation(level: int) -> bytes:
    """Encode that *level* of the replicated state machine is active from here on."""
    assert 0 < level <= MAX_LEVEL, "there is nothing to activate at level 0"
    return LEVEL_PREFIX + b"%d" % level


def activated_level(data: bytes) -> int:
    """Return the level that the no-op with *data* activates, 0 if it does not."""
    digits = data[len(LEVEL_PREFIX) :]
    if not data.startswith(LEVEL_PREFIX) or not digits.isdigit() or len(digits) > 10:
        return 0
    level = int(digits)
    return level if level <= MAX_LEVEL else 0


def encode_void(peer: str, incarnation: bytes) -> bytes:
    """Encode that the *incarnation* of the member at *peer* is void.

    It has forgotten what it promised: nobody hears it any more.
    """
    assert 0 < len(incarnation) <= MAX_INCARNATION_BYTES, "longer ones are not heard"
    size = len(incarnation).to_bytes(1, "big")
    return VOID_PREFIX + size + incarnation + address_to_bytes(peer)


def voided_incarnation(data: bytes) -> tuple[str, bytes]:
    """Return the member that the no-op with *data* declares void, and its incarnation.

    Both are empty if it does not.
    """
    if not data.startswith(VOID_PREFIX):
        return "", b""
    size, said = data[len(VOID_PREFIX) :][:1], data[len(VOID_PREFIX) + 1 :]
    length = int.from_bytes(size, "big")
    if not 0 < length <= MAX_INCARNATION_BYTES or len(said) <= length:
        return "", b""
    return address_from_bytes(said[length:]), said[:length]
