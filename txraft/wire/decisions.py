"""What a leader decides for its cluster, as the data of a no-op.

Go peers, and versions of this package that do not know a decision, store such an entry
and skip it, as they do with every no-op; theirs have no data.
"""

from __future__ import annotations

LEVEL_PREFIX = b"txraft-level:"

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
