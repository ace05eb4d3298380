"""One txraft server, told what to do over HTTP on loopback, as gonode is.

    python -m tests.interop.member JSON

A POST to /<command> carries one JSON object and is answered with another; a failure
is {"error": text}. The state machine keeps all that it was given: for each command
index, term, length and data.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txraft import (
    ApplyResult,
    Config,
    Configuration,
    Log,
    LogType,
    Raft,
    RaftError,
    SnapshotSink,
    Suffrage,
)
from txraft.clock import use_monotonic_time
from txraft.interfaces import PeerStore
from txraft.node.cluster_recovery import import_snapshot, recover_cluster
from txraft.node.worker import Workers
from txraft.storage.directory import DataDirectory
from txraft.storage.filelog import FileLog
from txraft.storage.peer_stores import JSONPeers, StaticPeers
from txraft.storage.snapshots import FileSnapshotStore, SnapshotReader
from txraft.storage.stable import FileStableStore
from txraft.transport.contexts import TLSFiles
from txraft.transport.identity import PeerNames
from txraft.transport.identity_check import IdentityCheck
from txraft.transport.network import NetworkTransport
from txraft.transport.tcp import TCPStreamLayer
from txraft.transport.tls import PeerTLS, TLSStreamLayer
from txraft.wire.decisions import encode_void

HEAD = struct.Struct(">QQI")
PIECE_BYTES = 1 << 20
CALL_TIMEOUT = 10.0
SAMPLED = 20


class Recorder:
    """A state machine whose state is all that it was given."""

    def __init__(self) -> None:
        self.state = bytearray()
        self.count = 0
        self.last = 0

    def apply(self, log: Log) -> int:
        """Keep one command."""
        data = log.data or b""
        self.state += HEAD.pack(log.index, log.term, len(data)) + data
        self.count += 1
        self.last = log.index
        return self.count

    def snapshot(self) -> Captured:
        """Copy the state."""
        return Captured(bytes(self.state))

    def restore(self, source: BinaryIO) -> None:
        """Take the state of a snapshot instead."""
        state = bytearray()
        while piece := source.read(PIECE_BYTES):
            state += piece
        at = count = last = 0
        while at < len(state):
            last, _, size = HEAD.unpack_from(state, at)
            at += HEAD.size + size
            count += 1
        self.state, self.count, self.last = state, count, last


class Captured:
    """A copy of the state."""

    def __init__(self, state: bytes) -> None:
        self._state = state

    def persist(self, sink: SnapshotSink) -> None:
        """Write it as it is."""
        for at in range(0, len(self._state), PIECE_BYTES):
            sink.write(self._state[at : at + PIECE_BYTES])

    def release(self) -> None:
        """Hold nothing any more."""
        self._state = b""


class Load:
    """Keeps *inflight* commands under way until *count* are answered."""

    def __init__(
        self, raft: Raft, data: str, count: int, inflight: int, size: int
    ) -> None:
        self._raft = raft
        self._data = data
        self._count = count
        self._sent = self._answered = self._done = 0
        self._padding = b"." * size
        self._failed: dict[str, bool] = {}
        self.window: dict[str, int] = {}
        self.over: Deferred[dict[str, Any]] = Deferred()
        for _ in range(min(inflight, count)):
            self._send()

    def _send(self) -> None:
        if self._sent == self._count:
            return
        command = f"{self._data}-{self._sent}".encode() + self._padding
        self._sent += 1
        self._raft.apply(command, CALL_TIMEOUT).addCallbacks(self._applied, self._lost)

    def _applied(self, _: ApplyResult) -> None:
        self._done += 1
        if self._done % SAMPLED == 0:
            self._look()
        self._next()

    def _look(self) -> None:
        """Note how many requests are on their way to each follower."""
        for address, peer in self._raft.metrics().peers.items():
            self.window[address] = max(self.window.get(address, 0), peer.in_flight)

    def _lost(self, failure: Any) -> None:
        self._failed[failure.getErrorMessage()] = True
        self._next()

    def _next(self) -> None:
        self._answered += 1
        if self._answered == self._count:
            self.over.callback({"done": self._done, "failed": self._failed})
        else:
            self._send()


class Commands:
    """What a server can be told; each answers with what becomes JSON."""

    def __init__(self, raft: Raft, fsm: Recorder) -> None:
        self._raft = raft
        self._fsm = fsm
        self._load: Load | None = None

    async def status(self) -> dict[str, Any]:
        """Tell role, indexes and membership."""
        raft = self._raft
        stats = raft.stats()
        return {
            "state": str(raft.state),
            "leader": raft.leader or "",
            "term": raft.term,
            "last": raft.last_index,
            "commit": raft.commit_index,
            "applied": raft.applied_index,
            "snapshot": int(stats.get("last_snapshot_index", 0)),
            "servers": [
                {
                    "id": server.id,
                    "address": server.address,
                    "votes": server.suffrage is Suffrage.VOTER,
                }
                for server in raft.configuration.servers
            ],
        }

    async def applied(self) -> dict[str, Any]:
        """Tell how much was applied, and a digest of it."""
        fsm = self._fsm
        digest = hashlib.sha256(fsm.state).hexdigest()
        return {"count": fsm.count, "last": fsm.last, "digest": digest}

    async def state(self) -> dict[str, Any]:
        """Tell all that was applied."""
        return {"state": self._fsm.state.hex()}

    async def apply(self, data: str) -> dict[str, Any]:
        """Apply one command."""
        result = await self._raft.apply(data.encode(), CALL_TIMEOUT)
        return {"index": result.index}

    async def load(
        self, data: str, count: int, inflight: int, size: int = 0
    ) -> dict[str, Any]:
        """Apply many commands."""
        self._load = load = Load(self._raft, data, count, inflight, size)
        return await load.over

    async def window(self) -> dict[str, Any]:
        """Tell how many requests were seen on their way to each follower at once."""
        assert self._load is not None, "there was a load"
        return self._load.window

    async def barrier(self) -> None:
        """Commit a barrier."""
        await self._raft.barrier(CALL_TIMEOUT)

    async def decide(self, address: str) -> dict[str, Any]:
        """Commit that an incarnation of a member is void, one that it never had."""
        data = encode_void(address, b"none of the kind")
        result = await self._raft._propose(LogType.NOOP, data, CALL_TIMEOUT)
        return {"index": result.index}

    async def verify(self) -> None:
        """Confirm leadership."""
        await self._raft.verify_leader()

    async def snapshot(self) -> None:
        """Take a snapshot."""
        await self._raft.snapshot()

    async def add(self, id: str, address: str) -> None:
        """Add a voter."""
        await self._raft.add_voter(id, address)

    async def nonvoter(self, id: str, address: str) -> None:
        """Add a nonvoter."""
        await self._raft.add_nonvoter(id, address)

    async def demote(self, id: str) -> None:
        """Take a server's vote."""
        await self._raft.demote_voter(id)

    async def remove(self, id: str, address: str = "") -> None:
        """Remove a server."""
        await self._raft.remove_server(id)

    async def transfer(self, id: str, address: str) -> None:
        """Hand leadership over."""
        await self._raft.transfer_leadership(address)


class Control(Resource):
    """Takes commands over HTTP."""

    isLeaf = True

    def __init__(self, commands: Commands) -> None:
        super().__init__()
        self._commands = commands

    def render_POST(self, request: Request) -> int:
        """Carry out one command."""
        command = getattr(self._commands, request.path.decode().lstrip("/"))
        told = json.loads(request.content.read() or b"{}")

        def answer(result: object) -> None:
            request.write(json.dumps(result or {}).encode())
            request.finish()

        def fail(failure: Any) -> None:
            if not failure.check(RaftError):
                failure.printTraceback()
            answer({"error": f"{failure.type.__name__}: {failure.getErrorMessage()}"})

        ensureDeferred(command(**told)).addCallbacks(answer, fail)
        return NOT_DONE_YET


def make_transport(reactor: Any, address: str, tls: PeerTLS | None) -> NetworkTransport:
    """Make a transport that is to listen, with or without TLS."""
    host, port = address.split(":")
    endpoint = serverFromString(reactor, f"tcp:{port}:interface={host}")
    tcp = TCPStreamLayer(reactor, endpoint, address)
    return NetworkTransport(
        reactor, tcp if tls is None else TLSStreamLayer(tcp, tls, reactor)
    )


async def run(reactor: ReactorBase, options: dict[str, Any]) -> None:
    """Take part until the process ends."""
    use_monotonic_time(reactor)
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    address = options["address"]
    name = options["id"]
    directory = DataDirectory(options["directory"], name)
    config = Config(**options["config"])
    peers: PeerStore = StaticPeers([])
    if options["bootstrap"]:
        peers = JSONPeers(directory.path)
    files, names, tls = options["tls"], PeerNames(), None
    if files is not None:
        # It shows what it is given: to refuse another name is for others.
        tls = PeerTLS(TLSFiles(**files), names, Path(files["certificate"]).stem)
    transport = make_transport(reactor, address, tls)
    await transport.listen()
    fsm = Recorder()
    log = FileLog(directory.log, name)
    stable = FileStableStore(directory.state, name)
    snapshots = FileSnapshotStore(directory.path, retain=2)
    listed = Configuration(tuple(JSONPeers(directory.path).servers()))
    if options["recover"]:
        recover_cluster(Recorder(), log, stable, snapshots, listed)
    if options["imported"]:
        source = SnapshotReader(options["imported"])
        import_snapshot(source, log, stable, snapshots, listed)
    raft = Raft(
        config,
        fsm,
        log,
        stable,
        snapshots,
        peers,
        address,
        transport,
        clock=reactor,
        workers=Workers.threaded(reactor),
        server_id=name,
    )
    if tls is not None:
        patience = config.heartbeat_timeout
        transport.set_identity_check(
            IdentityCheck(names, raft, reactor.seconds, patience)
        )
    host, port = options["control"].split(":")
    site = Site(Control(Commands(raft, fsm)))
    reactor.listenTCP(int(port), site, interface=host)
    await raft.start()
    stopped = await raft.when_stopped()
    sys.stderr.write(f"stopped: {stopped}\n")


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    react(lambda reactor: ensureDeferred(run(reactor, told)))
