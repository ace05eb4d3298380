"""One member of a benchmark's cluster: a node without HTTP, on Twisted.

    python -m benchmarks.members.txraft DIRECTORY ADDRESS PEERS CONFIG_JSON [TLS]

With "objects" in *CONFIG_JSON* a replicated object is written to, and else the
key-value store. *PEERS* are separated by commas. Writes are proposed inside its
process. Everything is synced, as in `twistd raft`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from benchmarks.children import resident_mib
from benchmarks.members.account import Account
from benchmarks.members.control import take_commands
from benchmarks.members.load import Load, measure, pause
from txraft import Config, Raft, RaftError, RaftState, Replicated, command
from txraft.clock import use_monotonic_time
from txraft.core.messages import AppendEntriesRequest, InstallSnapshotRequest
from txraft.daemon.garbage import ShortPauses
from txraft.interfaces import IncomingRPC, RPCHandler, StreamLayer
from txraft.kv.commands import encode_put
from txraft.kv.state import KeyValueFSM
from txraft.node.forwarding import Forwarder
from txraft.node.worker import Workers
from txraft.replicated.machine import bind, machine_of
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.peer_stores import StaticPeers
from txraft.storage.snapshots import FileSnapshotStore
from txraft.storage.stable import FileStableStore
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import PeerNames
from txraft.transport.network import NetworkTransport
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.tls import PeerTLS, TLSStreamLayer

POLL_SECONDS = 0.005
PATIENCE = 10.0


class Contacts:
    """A handler of requests that notes how long a leader was not heard of."""

    def __init__(self, handler: RPCHandler) -> None:
        self._handler = handler
        self._last = time.perf_counter()
        self._longest = 0.0

    def rpc_received(self, rpc: IncomingRPC) -> None:
        """Note a request of a leader, and pass every request on."""
        if isinstance(rpc.command, AppendEntriesRequest | InstallSnapshotRequest):
            now = time.perf_counter()
            self._longest = max(self._longest, now - self._last)
            self._last = now
        self._handler.rpc_received(rpc)

    def connection_closed(self, connection: object) -> None:
        """Pass it on."""
        self._handler.connection_closed(connection)

    def take_longest(self) -> float:
        """Return the longest silence until now, in seconds, and begin anew."""
        longest = max(self._longest, time.perf_counter() - self._last)
        self._longest = 0.0
        return longest


class TimedTransport(NetworkTransport):
    """A transport whose node's contacts are timed."""

    contacts: Contacts | None = None

    def set_handler(self, handler: RPCHandler) -> None:
        """Deliver requests to *handler*, noting when they come."""
        self.contacts = Contacts(handler)
        super().set_handler(self.contacts)


class Map(Replicated):
    """Keeps values by key."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    @command
    def put(self, key: str, value: bytes) -> None:
        """Set one value."""
        self.values[key] = value


class Direct:
    """What an object's commands go through: the node of this process."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[Any]:
        """Commit a command."""
        return self._raft.apply(data, timeout)

    def linearizable(self, timeout: float | None = None) -> Deferred[int]:
        """Wait for a read."""
        return self._raft.linearizable()


class Member:
    """A node, its stores and its transport."""

    def __init__(
        self,
        reactor: ReactorBase,
        path: str,
        config: Config,
        tls: str | None,
        objects: bool = False,
    ) -> None:
        self._reactor = reactor
        self._tls = tls
        self._path = path
        self._config = config
        self._account = Account()
        self._map = Map() if objects else None
        self.fsm = machine_of(self._map or KeyValueFSM(), {})

    async def run(self, address: str, peers: list[str]) -> None:
        """Take part until stdin closes."""
        use_monotonic_time(self._reactor)
        ShortPauses(self._reactor.seconds).startService()
        began = time.perf_counter()
        directory = DataDirectory(self._path, address)
        log = FileLog(directory.log, address)
        stable = FileStableStore(directory.state, address)
        snapshots = FileSnapshotStore(directory.path, retain=2)
        self._transport = TimedTransport(self._reactor, self._layer(address))
        await self._transport.listen()
        self.raft = Raft(
            self._config,
            self.fsm,
            log,
            stable,
            snapshots,
            StaticPeers(peers),
            address,
            self._transport,
            clock=self._reactor,
            workers=Workers.threaded(self._reactor),
        )
        self._forwarder = Forwarder(self.raft, self._transport, self._reactor)
        await self.raft.start()
        bind(self.fsm, Direct(self.raft))
        opened = time.perf_counter() - began
        await take_commands(self._reactor, self, opened=opened)
        await self.raft.shutdown()
        log.close()
        directory.close()

    def _layer(self, address: str) -> StreamLayer:
        host, port = address.split(":")
        endpoint = serverFromString(self._reactor, f"tcp:{port}:interface={host}")
        tcp = TCPStreamLayer(self._reactor, endpoint, address)
        if self._tls is None:
            return tcp
        files = TLSFiles(
            certificate=f"{self._tls}/127.0.0.1.pem",
            private_key=f"{self._tls}/127.0.0.1.key",
            ca=f"{self._tls}/ca.pem",
        )
        tls = PeerTLS(files, PeerNames(), "127.0.0.1")
        return TLSStreamLayer(tcp, tls, self._reactor)

    async def status(self) -> dict[str, Any]:
        """Tell role, indexes and memory."""
        raft = self.raft
        return {
            "leads": raft.state is RaftState.LEADER,
            "leader": raft.leader,
            "term": raft.term,
            "applied": raft.applied_index,
            "committed": raft.commit_index,
            "resident_mib": resident_mib(),
            "cpu_seconds": sum(os.times()[:2]),
        }

    async def load(
        self,
        inflight: int,
        seconds: float,
        bytes: int,
        keys: int,
        warm_up: float = 0.5,
        anywhere: bool = False,
    ) -> dict[str, Any]:
        """Keep proposals in flight for a while and tell their rate and latency.

        With *anywhere* a member that does not lead passes them on; on the leader
        nothing changes.
        """
        used = sum(os.times()[:2])
        passes_on = anywhere and self.raft.state is not RaftState.LEADER
        put = self._pass_on if passes_on else self._put
        load = Load(put, inflight, bytes, keys)
        found = await measure(self._reactor, load, warm_up, seconds)
        used = sum(os.times()[:2]) - used
        return found | {"cpu_us_per_entry": used / load.answered * 1e6}

    async def read(self, readers: int, seconds: float) -> dict[str, Any]:
        """Keep linearizable reads waiting for a while, and tell what `load` tells."""
        load = Load(self._read, readers, 0, 1)
        return dict(await measure(self._reactor, load, 0.0, seconds))

    async def fill(
        self, entries: int, bytes: int, keys: int, inflight: int = 512
    ) -> dict[str, Any]:
        """Apply a number of entries."""
        began = time.perf_counter()
        await Load(self._put, inflight, bytes, keys).start(entries)
        return {"seconds": time.perf_counter() - began}

    async def commit(self, killed: str) -> dict[str, Any]:
        """Wait until a write of this node is committed, or another node leads."""
        while True:
            if self.raft.state is RaftState.LEADER:
                try:
                    await self._put("failover", b"")
                except RaftError:
                    pass
                else:
                    return {"committed": True}
            elif self.raft.leader not in (None, killed):
                return {"committed": False}
            await pause(self._reactor, POLL_SECONDS)

    async def snapshot(self) -> dict[str, Any]:
        """Take a snapshot."""
        began = time.perf_counter()
        meta = await self.raft.snapshot()
        return {"seconds": time.perf_counter() - began, "bytes": meta.size}

    async def silence(self) -> dict[str, Any]:
        """Tell the longest time without a leader since the last such question."""
        assert self._transport.contacts is not None
        return {"seconds": self._transport.contacts.take_longest()}

    async def processor_time(self) -> dict[str, Any]:
        """Tell the seconds of the reactor thread and of the whole process."""
        return {"reactor": time.thread_time(), "process": time.process_time()}

    async def start_account(self) -> dict[str, Any]:
        """Begin to note where the reactor thread's time goes."""
        self._account.start()
        return {}

    async def stop_account(self) -> dict[str, Any]:
        """Tell where it went, in seconds."""
        return self._account.stop()

    def _pass_on(self, key: str, value: bytes) -> Deferred[Any]:
        deadline = self._reactor.seconds() + PATIENCE
        return self._forwarder.apply(encode_put(key, value), deadline)

    def _read(self, key: str, value: bytes) -> Deferred[Any]:
        return self._forwarder.linearizable(self._reactor.seconds() + PATIENCE)

    def _put(self, key: str, value: bytes) -> Deferred[Any]:
        if self._map is not None:
            return self._map.put(key, value)
        return self.raft.apply(encode_put(key, value))


if __name__ == "__main__":
    path, address, peers, config, *tls = sys.argv[1:]
    globalLogBeginner.beginLoggingTo(
        [textFileLogObserver(sys.stderr)], redirectStandardIO=False
    )
    settings = json.loads(config)
    objects = settings.pop("objects", False)
    options = Config(**settings)
    react(
        lambda reactor: ensureDeferred(
            Member(reactor, path, options, tls[0] if tls else None, objects).run(
                address, peers.split(",")
            )
        )
    )
