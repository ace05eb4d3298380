"""Backups as Consul writes them: a gzipped tar of metadata, state and checksums.

meta.json     the metadata of a snapshot, as hashicorp/raft writes it
state.bin     a snapshot of the key-value state
SHA256SUMS    checksums of both, as sha256sum(1) writes them
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib

from txraft.core.configuration import Configuration
from txraft.errors import DataCorrupted

META, STATE, SUMS = "meta.json", "state.bin", "SHA256SUMS"
MAX_META_BYTES = 1 << 20
_COMPRESSION = 1
_GZIP = 31


def describe(
    index: int, term: int, configuration: Configuration, size: int
) -> dict[str, object]:
    """Make the metadata of a state of *size* bytes at *index* and *term*."""
    servers = [
        {
            "Suffrage": int(server.suffrage),
            "ID": server.id,
            "Address": server.address,
        }
        for server in configuration.servers
    ]
    return {
        "Version": 1,
        "ID": f"{term}-{index}",
        "Index": index,
        "Term": term,
        "Peers": None,
        "Configuration": {"Servers": servers},
        "ConfigurationIndex": 0,
        "Size": size,
    }


def pack(meta: dict[str, object], state: bytes) -> bytes:
    """Make an archive."""
    described = json.dumps(meta).encode() + b"\n"
    files = {META: described, STATE: state}
    sums = "".join(f"{_sum(data)}  {name}\n" for name, data in files.items())
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", compresslevel=_COMPRESSION) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, data in {**files, SUMS: sums.encode()}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def unpack(archive: bytes, max_state_bytes: int) -> bytes:
    """Return the state in *archive*, whose checksums hold.

    Raises: DataCorrupted with what is wrong.
    """
    files = _files(_inflate(archive, max_state_bytes + 2 * MAX_META_BYTES))
    missing = {META, STATE, SUMS} - files.keys()
    if missing:
        raise DataCorrupted(f"the backup has no {', '.join(sorted(missing))}")
    sums = dict.fromkeys((META, STATE), "")
    for line in files[SUMS].decode("ascii", "replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    for name in (META, STATE):
        if sums[name] != _sum(files[name]):
            raise DataCorrupted(f"{name} in the backup differs from its checksum")
    return files[STATE]


def _inflate(archive: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    try:
        data = inflater.decompress(archive, most)
    except zlib.error as error:
        raise DataCorrupted(f"the backup is not gzip: {error}") from error
    if inflater.unconsumed_tail:
        raise DataCorrupted(f"the backup holds more than {most} bytes")
    if not inflater.eof:
        raise DataCorrupted("the backup ends before its end mark")
    return data


def _files(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isfile() else None
                if member.name in (META, STATE, SUMS) and source is not None:
                    files[member.name] = source.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataCorrupted(f"the backup is not a tar archive: {error}") from error
    return files


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
