"""One member of a benchmark's cluster, told what to do by JSON lines on stdin.

    python -m benchmarks.node DIRECTORY ADDRESS PEER,PEER,... CONFIG_JSON [TLS]

Commands: {"do": "status"}, {"do": "load", "inflight": N, "seconds": S, "bytes": B,
"keys": K}, {"do": "fill", "entries": N, "bytes": B, "keys": K}, {"do": "stop"}. Each
is answered by one JSON line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from twisted.internet import stdio
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver

from txraft import Config, Raft, RaftState
from txraft.clock import use_monotonic_time
from txraft.kv.commands import encode_put
from txraft.kv.state import KeyValueFSM
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.peers import StaticPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import PeerNames
from txraft.transport.network import NetworkTransport
from txraft.transport.tcp import TCPStreamLayer, new_tcp_transport
from txraft.transport.tls import PeerTLS, TLSStreamLayer

WARM_UP = 0.5


class Load:
    """Keeps a number of proposals in flight and times each."""

    def __init__(self, raft: Raft, inflight: int, size: int, keys: int) -> None:
        self._raft = raft
        self._inflight = inflight
        self._value = b"v" * size
        self._keys = keys
        self._sent = 0
        self._limit: int | None = None
        self._answered_count = 0
        self._done: Deferred[None] = Deferred()
        self.latencies: list[float] = []

    def start(self, limit: int | None = None) -> Deferred[None]:
        """Begin; fires once *limit* proposals were answered."""
        self._limit = limit
        for _ in range(self._inflight):
            self._send()
        return self._done

    def stop(self) -> Deferred[None]:
        """Send no more; fires when all that was sent is answered."""
        self._limit = self._sent
        return self._done

    def _send(self) -> None:
        if self._limit is not None and self._sent >= self._limit:
            return
        command = encode_put(f"key-{self._sent % self._keys:06d}", self._value)
        self._sent += 1
        began = time.perf_counter()
        self._raft.apply(command).addCallback(self._answered, began)

    def _answered(self, _: object, began: float) -> None:
        self.latencies.append(time.perf_counter() - began)
        self._answered_count += 1
        if self._answered_count == self._limit:
            self._done.callback(None)
        else:
            self._send()


class Control(LineOnlyReceiver):
    """Reads commands and answers them."""

    delimiter = b"\n"

    def __init__(self, reactor: ReactorBase, member: Member) -> None:
        self._reactor = reactor
        self._member = member

    def lineReceived(self, line: bytes) -> None:
        """Carry out one command."""
        command = json.loads(line)
        done = ensureDeferred(getattr(self._member, command.pop("do"))(**command))
        done.addCallback(lambda answer: self.sendLine(json.dumps(answer).encode()))
        done.addErrback(lambda f: (f.printTraceback(), self._reactor.stop()))

    def connectionLost(self, reason: object = None) -> None:
        """End with the process that started this one."""
        self._member.stopped.callback(None)


class Member:
    """A node without HTTP: proposals are made inside its process."""

    def __init__(
        self, reactor: ReactorBase, path: str, config: Config, tls: str | None
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._path = path
        self._config = config
        self.fsm = KeyValueFSM()
        self.stopped: Deferred[None] = Deferred()

    async def run(self, address: str, peers: list[str]) -> None:
        """Take part until stdin closes."""
        use_monotonic_time(self._reactor)
        began = time.perf_counter()
        directory = DataDirectory(self._path, address)
        log = FileLog(directory.log, address)
        stable = FileStableStore(directory.state, address)
        snapshots = FileSnapshotStore(directory.path, retain=2)
        host, port = address.split(":")
        listen = f"tcp:{port}:interface={host}"
        self.raft = Raft(
            self._config,
            self.fsm,
            log,
            stable,
            snapshots,
            StaticPeers(peers),
            address,
            await self._transport(listen, address),
            clock=self._reactor,
            workers=Workers.threaded(self._reactor),
        )
        await self.raft.start()
        opened = time.perf_counter() - began
        stdio.StandardIO(Control(self._reactor, self))
        print(json.dumps({"opened": opened}), flush=True)
        await self.stopped
        await self.raft.shutdown()
        log.close()
        directory.close()

    async def _transport(self, listen: str, address: str) -> NetworkTransport:
        if self._tls is None:
            return await new_tcp_transport(self._reactor, listen, address)
        files = TLSFiles(
            certificate=f"{self._tls}/127.0.0.1.pem",
            private_key=f"{self._tls}/127.0.0.1.key",
            ca=f"{self._tls}/ca.pem",
        )
        tls = PeerTLS(files, PeerNames(), "127.0.0.1")
        tcp = TCPStreamLayer(
            self._reactor, serverFromString(self._reactor, listen), address
        )
        transport = NetworkTransport(
            self._reactor, TLSStreamLayer(tcp, tls, self._reactor)
        )
        await transport.listen()
        return transport

    async def status(self) -> dict[str, Any]:
        """Tell role, indexes and memory."""
        raft = self.raft
        return {
            "leads": raft.state is RaftState.LEADER,
            "leader": raft.leader,
            "applied": raft.applied_index,
            "committed": raft.commit_index,
            "resident_mib": resident_mib(),
            "cpu_seconds": sum(os.times()[:2]),
        }

    async def load(
        self, inflight: int, seconds: float, bytes: int, keys: int
    ) -> dict[str, Any]:
        """Keep proposals in flight for a while and tell their rate and latency."""
        load = Load(self.raft, inflight, bytes, keys)
        load.start()
        await self._sleep(WARM_UP)
        load.latencies.clear()
        began, used = time.perf_counter(), sum(os.times()[:2])
        await self._sleep(seconds)
        elapsed = time.perf_counter() - began
        used = sum(os.times()[:2]) - used
        latencies = sorted(load.latencies)
        count = len(latencies)
        await load.stop()
        return {
            "rate": count / elapsed,
            "p50_ms": latencies[count // 2] * 1e3,
            "p99_ms": latencies[int(count * 0.99)] * 1e3,
            "cpu_us_per_entry": used / count * 1e6,
        }

    async def fill(
        self, entries: int, bytes: int, keys: int, inflight: int = 512
    ) -> dict[str, Any]:
        """Apply a number of entries."""
        began = time.perf_counter()
        await Load(self.raft, inflight, bytes, keys).start(entries)
        return {"seconds": time.perf_counter() - began}

    async def _sleep(self, seconds: float) -> None:
        over: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, over.callback, None)
        await over


def resident_mib() -> float:
    """Return the memory that this process holds, in MiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    path, address, peers, config, *tls = sys.argv[1:]
    options = Config(**json.loads(config))
    react(
        lambda reactor: ensureDeferred(
            Member(reactor, path, options, tls[0] if tls else None).run(
                address, peers.split(",")
            )
        )
    )
