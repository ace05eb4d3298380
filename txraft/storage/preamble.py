"""The first bytes of each storage file: its kind, its format and a checksum.

They keep their place and their own checksum in all future formats, so that a newer file
is recognized and never mistaken for a damaged one.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from txraft.errors import DataCorrupted, FormatTooNew, WrongDirectory, WrongNode

MAX_NODE_NAME_BYTES = 1024
WAY_OUT = (
    "restore the data directory from a backup, or remove this server from the "
    "cluster and add it again with an empty data directory"
)

_LAYOUT = struct.Struct(">8sII")
PREAMBLE_BYTES = _LAYOUT.size


def encode_preamble(magic: bytes, version: int) -> bytes:
    """Make the preamble of a file of format *version*."""
    checked = _LAYOUT.pack(magic, version, 0)[:-4]
    return checked + struct.pack(">I", zlib.crc32(checked))


def check_preamble(data: bytes, magic: bytes, version: int, path: Path) -> int:
    """Refuse a file of another kind, a damaged one, or one of a newer format.

    Returns: the format, at most *version*.
    Raises: DataCorrupted, FormatTooNew
    """
    if len(data) < PREAMBLE_BYTES:
        raise damaged(path, len(data), "the file ends in its header")
    found, number, checksum = _LAYOUT.unpack_from(data)
    if zlib.crc32(data[: PREAMBLE_BYTES - 4]) != checksum or found != magic:
        raise damaged(path, 0, "the file does not begin with a valid header")
    # Only after the checksum: a damaged number must not pass for a newer format.
    if number > version:
        raise FormatTooNew(
            f"{path}: the file has format {number}, this version reads formats up "
            f"to {version}; start the version that wrote it, or a later one"
        )
    return int(number)


def encode_node_name(name: str) -> bytes:
    """Encode a node's name for a header. Raises: ValueError when it is too long."""
    data = name.encode("utf-8", "surrogateescape")
    if len(data) > MAX_NODE_NAME_BYTES:
        raise ValueError(f"a node name has at most {MAX_NODE_NAME_BYTES} bytes")
    return data


def decode_node_name(data: bytes) -> str:
    """Decode a node's name from a header."""
    return data.decode("utf-8", "surrogateescape")


def check_node_name(found: bytes, name: str, path: Path) -> None:
    """Refuse a file of another node. Raises: WrongNode"""
    if found != encode_node_name(name):
        owner = found.decode("utf-8", "backslashreplace")
        raise WrongNode(
            f"{path}: the file belongs to node {owner!r} and this is node {name!r}; "
            "give this node a data directory of its own"
        )


def check_directory(found: bytes, identity: bytes, path: Path) -> None:
    """Refuse a file of another data directory, if both have an identity.

    Raises: WrongDirectory
    """
    if found and identity and found != identity:
        raise wrong_directory(path)


def wrong_directory(path: Path) -> WrongDirectory:
    """Make the error for a log at *path* that does not belong to its state file."""
    return WrongDirectory(
        f"{path}: the file belongs to another data directory than the file `state` "
        "does: term and vote here are not those of this log. Put back what belongs "
        "together, or remove this server from the cluster, take its data directory "
        "away and add it again with join: true"
    )


def damaged(path: Path, offset: int, what: str) -> DataCorrupted:
    """Make the error for damage at byte *offset* of *path*."""
    return DataCorrupted(f"{path}: damaged at byte {offset}: {what}; {WAY_OUT}")
