"""Encodes and decodes the file `meta.json` of a snapshot, as hashicorp/raft does.

Its files have a checksum of the state, but none of the description itself. Ours end
with one, in a key that hashicorp/raft skips: a flipped bit could make a voter a
nonvoter.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from fastcrc.crc64 import xz

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.errors import DataCorrupted, FormatTooNew, ProtocolError, StorageError
from txraft.interfaces import SnapshotMeta
from txraft.storage.gojson import dump_json, load_json
from txraft.wire.membership import decode_peers, encode_peers

META_VERSION = 1
MAX_META_BYTES = 1 << 20
CRC_BYTES = 8

_CHECK = b',"Check":"'
"""Begins the last field: the checksum of everything before it."""


def encode_meta(meta: SnapshotMeta, crc: int | None) -> bytes:
    """Encode *meta* as one line; *crc* is None while the snapshot is being written."""
    servers = [
        {"Suffrage": int(server.suffrage), "ID": server.id, "Address": server.address}
        for server in meta.configuration.servers
    ]
    checksum = None if crc is None else _base64(crc.to_bytes(CRC_BYTES, "big"))
    fields = {
        "Version": META_VERSION,
        "ID": meta.id,
        "Index": meta.index,
        "Term": meta.term,
        "Peers": _base64(encode_peers(meta.configuration.voters)),
        # nil, as Go writes a slice that was never set.
        "Configuration": {"Servers": servers or None},
        "ConfigurationIndex": meta.configuration_index,
        "Size": meta.size,
        "CRC": checksum,
    }
    if meta.cluster:
        fields["Cluster"] = _base64(meta.cluster)
    line = dump_json(fields)
    return line if crc is None else _checked(line.removesuffix(b"}\n"))


def _checked(described: bytes) -> bytes:
    check = xz(described).to_bytes(CRC_BYTES, "big")
    return described + _CHECK + _base64(check).encode() + b'"}\n'


def decode_meta(data: bytes, id: str, path: Path) -> tuple[SnapshotMeta, int]:
    """Decode the description of the snapshot *id*, which was read from *path*.

    Version 0, of hashicorp/raft 0.1.0, has only peers: their address is also their id,
    and the configuration has the index of the snapshot.
    Returns: the description and the checksum of the state.
    Raises: DataCorrupted, FormatTooNew
    """
    if len(data) > MAX_META_BYTES:
        raise DataCorrupted(f"{path}: larger than {MAX_META_BYTES} bytes")
    try:
        fields = load_json(data)
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
        version = _number(fields, "Version") if "Version" in fields else 0
        if version > META_VERSION:
            raise FormatTooNew(
                f"{path}: the snapshot has version {version}, this version reads "
                f"versions up to {META_VERSION}; start the version that wrote it"
            )
        if fields.get("ID") != id:
            raise ValueError(f"it describes snapshot {fields.get('ID')!r:.80}")
        if "Check" in fields:
            _verify(data, _text(fields, "Check"))
        meta = _meta_of(fields, id, version)
        crc = base64.b64decode(_text(fields, "CRC"), validate=True)
        if len(crc) != CRC_BYTES:
            raise ValueError("the checksum has another length")
    except (ValueError, ProtocolError, binascii.Error) as error:
        raise DataCorrupted(f"{path}: no description of a snapshot: {error}") from error
    return meta, int.from_bytes(crc, "big")


def _verify(data: bytes, check: str) -> None:
    described = data[: max(0, data.rfind(_CHECK))]
    found = base64.b64decode(check, validate=True)
    if found != xz(described).to_bytes(CRC_BYTES, "big"):
        raise ValueError("its checksum does not match")


def _meta_of(fields: dict[str, Any], id: str, version: int) -> SnapshotMeta:
    index = _number(fields, "Index")
    if version == 0:
        peers = decode_peers(base64.b64decode(_text(fields, "Peers"), validate=True))
        configuration, configuration_index = Configuration.of_voters(peers), index
    else:
        configuration = _configuration_of(fields.get("Configuration"))
        configuration_index = _number(fields, "ConfigurationIndex")
    return SnapshotMeta(
        id=id,
        index=index,
        term=_number(fields, "Term"),
        configuration=configuration,
        configuration_index=configuration_index,
        size=_number(fields, "Size"),
        version=version,
        cluster=base64.b64decode(_text(fields, "Cluster", ""), validate=True),
    )


def _configuration_of(value: Any) -> Configuration:
    if not isinstance(value, dict):
        raise ValueError("Configuration is not an object")
    servers = value.get("Servers")
    if servers is None:
        return Configuration()
    if not isinstance(servers, list) or not all(isinstance(s, dict) for s in servers):
        raise ValueError("Servers is not a list of objects")
    return Configuration(
        tuple(
            Server(
                _text(server, "ID"),
                _text(server, "Address"),
                Suffrage(_number(server, "Suffrage")),
            )
            for server in servers
        )
    )


def _number(fields: dict[str, Any], key: str) -> int:
    value = fields.get(key)
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError(f"{key} is {value!r:.40}, not an unsigned integer")
    return value


def _text(fields: dict[str, Any], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} is {value!r:.40}, not a string")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def refuse_id(id: str) -> StorageError:
    """Make the error for an *id* that names no snapshot here."""
    return StorageError(f"there is no snapshot {id!r:.80}")
