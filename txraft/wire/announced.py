"""What a message that is not all there announces: how long the value is it waits for.

msgpack compares the length of a string with its limit only when all of it has come, so
a peer could announce 2 GiB and have whatever a message may take kept for it. But the
unpacker stops right behind the header of a value that is not there yet. So a header is
in the bytes before, and what is behind them tells that it is no shorter one: a 16-bit
length would have been served with 65 535 bytes.
"""

from __future__ import annotations

HEADER_BYTES = 5
"""A header with a 32-bit length: its type, and the length."""

_32_BIT = frozenset((0xC6, 0xC9, 0xDB))
_16_BIT = frozenset((0xC5, 0xC8, 0xDA))
_8_BIT = frozenset((0xC4, 0xC7, 0xD9))
_LONGEST_NUMBER = 8
_FIXEXT_16, _FIXEXT_16_BYTES = 0xD8, 17


def announced_length(before: bytes, waiting: int) -> int:
    """Return the 32-bit length at the end of *before*.

    *before* ends where the unpacker has stopped, for a value of which *waiting* bytes
    are there.
    Returns: 0 when there is none, or it might as well be one of fewer bits.
    """
    header = before[-HEADER_BYTES:]
    if waiting < _LONGEST_NUMBER or len(header) < HEADER_BYTES:
        return 0
    if header[0] not in _32_BIT or _may_be_shorter(header, waiting):
        return 0
    return int.from_bytes(header[1:], "big")


def _may_be_shorter(header: bytes, waiting: int) -> bool:
    """Tell whether a header within *header* would let the unpacker wait as well."""
    _, _, third, fourth, last = header
    return (
        (third in _16_BIT and fourth << 8 | last >= waiting)
        or (fourth in _8_BIT and last >= waiting)
        or (0xA0 <= last <= 0xBF and last - 0xA0 > waiting)
        or (last == _FIXEXT_16 and waiting < _FIXEXT_16_BYTES)
    )
