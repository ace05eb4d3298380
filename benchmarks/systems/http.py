"""Servers that are asked over HTTP: `twistd raft`, and etcd with its JSON gateway."""

from __future__ import annotations

import http.client
import json
import sys
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import Child, free_address
from benchmarks.systems.etcd import ETCD_SYSTEMS, EtcdGroup
from benchmarks.systems.group import LEADER_SECONDS, POLL_SECONDS
from benchmarks.systems.txraft import txraft_version

OPERATIONS = 64
"""Operations of one transaction: the most that Consul allows."""

KINDS = ["write", "linearizable read", "stale read", f"transaction of {OPERATIONS}"]
SETTINGS = """\
data_dir: {directory}
listen: tcp:{port}:interface=127.0.0.1
peers: [{peers}]
http:
  listen: tcp:{http_port}:interface=127.0.0.1
"""
TWISTD = "from twisted.scripts.twistd import run; run()"


def as_request(method: str, path: str, body: bytes) -> bytes:
    """Make a request of HTTP/1.1 that keeps its connection."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body or method != "GET":
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def base64(data: bytes) -> str:
    """Encode *data* for JSON."""
    return b64encode(data).decode()


class Site(ABC):
    """Three servers with an HTTP API each."""

    @abstractmethod
    def start(self) -> None:
        """Start everything."""

    @abstractmethod
    def stop(self) -> None:
        """Stop everything."""

    @abstractmethod
    def leader(self) -> str:
        """Wait for a leader; return the address of its HTTP API."""

    @abstractmethod
    def requests(self, kind: str, keys: list[str], value: bytes) -> list[bytes]:
        """Make requests of one of `KINDS` over *keys*."""

    @abstractmethod
    def processes(self) -> list[Child]:
        """Return the servers' processes."""


class TxraftSite(Site):
    """`twistd raft`, three times."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._peers = [free_address() for _ in range(3)]
        self._http = [free_address() for _ in range(3)]
        self._children: list[Child] = []

    def start(self) -> None:
        """Start everything."""
        for number, (peer, web) in enumerate(zip(self._peers, self._http, strict=True)):
            settings = self._base / f"n{number}.yaml"
            settings.write_text(
                SETTINGS.format(
                    directory=self._base / f"n{number}",
                    port=peer.split(":")[1],
                    peers=", ".join(self._peers),
                    http_port=web.split(":")[1],
                )
            )
            command = [sys.executable, "-c", TWISTD, "-n", "--pidfile="]
            command += ["raft", "--config", str(settings)]
            log = self._base / f"n{number}.log"
            self._children.append(Child(command, log, talks=False))

    def stop(self) -> None:
        """Stop everything."""
        for child in self._children:
            child.stop()

    def leader(self) -> str:
        """Ask all of them until one knows."""
        until = time.monotonic() + LEADER_SECONDS
        while time.monotonic() < until:
            for address in self._http:
                found = _get_json(address, "/v1/status/leader")
                if found in self._peers:
                    return self._http[self._peers.index(found)]
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"no leader within {LEADER_SECONDS:.0f} s")

    def requests(self, kind: str, keys: list[str], value: bytes) -> list[bytes]:
        """Make requests of Consul's dialect."""
        if kind == "write":
            return [as_request("PUT", f"/v1/kv/{key}", value) for key in keys]
        if kind == "linearizable read":
            return [as_request("GET", f"/v1/kv/{key}", b"") for key in keys]
        if kind == "stale read":
            return [as_request("GET", f"/v1/kv/{key}?stale", b"") for key in keys]
        bodies = [
            [
                {"KV": {"Verb": "set", "Key": key, "Value": base64(value)}}
                for key in some
            ]
            for some in _transactions(keys)
        ]
        return [
            as_request("PUT", "/v1/txn", json.dumps(body).encode()) for body in bodies
        ]

    def processes(self) -> list[Child]:
        """Return the servers' processes."""
        return self._children


class EtcdSite(Site):
    """etcd's gateway from JSON to gRPC, in each server."""

    def __init__(self, base: Path) -> None:
        self._group = EtcdGroup(base)

    def start(self) -> None:
        """Start everything."""
        self._group.start()

    def stop(self) -> None:
        """Stop everything."""
        self._group.stop()

    def leader(self) -> str:
        """Wait for a leader; return the address of its HTTP API."""
        return self._group.clients[self._group.leader()]

    def requests(self, kind: str, keys: list[str], value: bytes) -> list[bytes]:
        """Make requests of the gateway."""
        if kind == "write":
            return [_post("put", _put(key, value)) for key in keys]
        if kind == "linearizable read":
            return [_post("range", {"key": base64(key.encode())}) for key in keys]
        if kind == "stale read":
            return [
                _post("range", {"key": base64(key.encode()), "serializable": True})
                for key in keys
            ]
        return [
            _post(
                "txn", {"success": [{"requestPut": _put(key, value)} for key in some]}
            )
            for some in _transactions(keys)
        ]

    def processes(self) -> list[Child]:
        """Return the servers' processes."""
        return list(self._group.members.values())


def _put(key: str, value: bytes) -> dict[str, str]:
    return {"key": base64(key.encode()), "value": base64(value)}


def _post(what: str, body: object) -> bytes:
    return as_request("POST", f"/v3/kv/{what}", json.dumps(body).encode())


def _transactions(keys: list[str]) -> list[list[str]]:
    return [
        keys[at : at + OPERATIONS]
        for at in range(0, len(keys) - OPERATIONS + 1, OPERATIONS)
    ]


def _get_json(address: str, path: str) -> object:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


@dataclass(frozen=True)
class WebSystem:
    """Something that can be measured over HTTP; as `System`."""

    name: str
    durable: str
    make: Callable[[Path], Site]
    missing: Callable[[], str | None]
    version: Callable[[], str]
    note: str


WEB_SYSTEMS = [
    WebSystem(
        "txraft", "fdatasync", TxraftSite, lambda: None, txraft_version, "twistd raft"
    ),
    WebSystem(
        "etcd",
        "fdatasync",
        EtcdSite,
        ETCD_SYSTEMS[0].missing,
        ETCD_SYSTEMS[0].version,
        "its gateway from JSON to gRPC",
    ),
]
