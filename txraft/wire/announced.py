"""Reads the announced length of a value before the value itself has arrived.

msgpack compares the length of a string with its limit only once all of it has come. So
a peer could announce 2 GiB and make this node keep as much as a message may have. But
the unpacker stops right behind the header of a value that is not complete. The bytes
before that place end with the header, which is taken for one with a 32-bit length only
if no shorter header fits: a 16-bit length would be satisfied by 65 535 bytes.
"""

from __future__ import annotations

HEADER_BYTES = 5
"""A header with a 32-bit length: its type, and the length."""

# The first bytes of bin, ext and str, by the width of the length that follows.
_32_BIT = frozenset((0xC6, 0xC9, 0xDB))
_16_BIT = frozenset((0xC5, 0xC8, 0xDA))
_8_BIT = frozenset((0xC4, 0xC7, 0xD9))
_LONGEST_NUMBER = 8
_FIXEXT_16, _FIXEXT_16_BYTES = 0xD8, 17


def announced_length(before: bytes, waiting: int) -> int:
    """Return the 32-bit length at the end of *before*.

    *before* ends where the unpacker has stopped; *waiting* bytes of the value are
    there.
    Returns: 0 when there is none, or when it may be a length of fewer bits.
    """
    header = before[-HEADER_BYTES:]
    # With so few bytes the unpacker may as well wait for the rest of a number.
    if waiting < _LONGEST_NUMBER or len(header) < HEADER_BYTES:
        return 0
    if header[0] not in _32_BIT or _may_be_shorter(header, waiting):
        return 0
    return int.from_bytes(header[1:], "big")


def _may_be_shorter(header: bytes, waiting: int) -> bool:
    """Tell whether a shorter header at the end of *header* also explains the wait."""
    _, _, third, fourth, last = header
    return (
        (third in _16_BIT and fourth << 8 | last >= waiting)
        or (fourth in _8_BIT and last >= waiting)
        or (0xA0 <= last <= 0xBF and last - 0xA0 > waiting)
        or (last == _FIXEXT_16 and waiting < _FIXEXT_16_BYTES)
    )
