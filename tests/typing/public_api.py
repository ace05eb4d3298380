"""The whole public API as an application uses it: for mypy to check, strictly."""

# mypy: enable-error-code="unused-awaitable"

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import BinaryIO

from twisted.internet.defer import Deferred, DeferredQueue, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock

import txraft
from txraft import (
    FSM,
    ApplicationError,
    ApplyResult,
    BatchingFSM,
    Config,
    Configuration,
    ConfigurationRefused,
    EnqueueTimeout,
    FilterFn,
    FSMSnapshot,
    LeaderObservation,
    LeadershipLost,
    LeveledFSM,
    Log,
    LogStore,
    LogType,
    NotLeader,
    Observation,
    Observer,
    PeerStore,
    QueueFull,
    Raft,
    RaftError,
    RaftState,
    RequestVoteRequest,
    Server,
    SnapshotMeta,
    SnapshotSink,
    SnapshotStore,
    StableStore,
    StreamLayer,
    Suffrage,
    Transport,
    Workers,
)
from txraft.storage.snapshots import SnapshotReader


def use(*values: object) -> None:
    """Take *values*, whose types are what is of interest."""


# A state machine -----------------------------------------------------------------


class Counter:
    """Counts, and refuses what is no number."""

    def __init__(self) -> None:
        self.value = 0

    def apply(self, log: Log) -> object:
        """Add the number in the command."""
        assert log.type is LogType.COMMAND
        try:
            self.value += int(log.data or b"1")
        except ValueError as error:
            raise ApplicationError("not a number") from error
        return succeed(self.value) if log.index % 2 else self.value

    def apply_batch(self, logs: Sequence[Log]) -> Sequence[object]:
        """Add the numbers in many commands."""
        return [self.apply(log) for log in logs]

    def snapshot(self) -> FSMSnapshot:
        """Capture the number."""
        return Captured(self.value)

    def restore(self, source: BinaryIO) -> None:
        """Take the number of a snapshot."""
        self.value = json.load(source)


class Captured:
    """A number to be written."""

    def __init__(self, value: int) -> None:
        self._value = value

    def persist(self, sink: SnapshotSink) -> None:
        """Write it."""
        written: int = sink.write(json.dumps(self._value).encode())
        use(written, sink.id)

    def release(self) -> None:
        """Do nothing."""


counter: FSM = Counter()
batching: BatchingFSM = Counter()


class LeveledCounter(Counter):
    """A counter whose rules have changed once."""

    level = 1

    def __init__(self) -> None:
        super().__init__()
        self.active_level = 0

    def activate(self, level: int) -> None:
        """Go by the new rules."""
        self.active_level = level

    def restore(self, source: BinaryIO) -> None:
        """Take the number and the level of a snapshot."""
        self.value, level = json.load(source)
        if level > self.level:
            raise txraft.UpgradeNeeded(level, self.level)
        self.active_level = level


leveled: LeveledFSM = LeveledCounter()


class NamedCounter(Counter):
    """A counter that takes no data but its own."""

    application_name = "counter"

    def is_own_command(self, data: bytes) -> bool:
        """Tell whether it is a number."""
        return data.isdigit()

    def is_own_snapshot(self, head: bytes) -> bool:
        """Tell whether it begins like one."""
        return head[:1].isdigit()


named: txraft.NamedFSM = NamedCounter()
discerning: txraft.DiscerningFSM = NamedCounter()


class Jobs(txraft.Replicated):
    """Hands out jobs for some time each."""

    def __init__(self) -> None:
        self.leases: dict[str, float] = {}

    @txraft.command
    def claim(self, seconds: float) -> str | None:
        """Take one that is free."""
        free = next((n for n, t in self.leases.items() if t <= self.context.time), None)
        if free is not None:
            self.leases[free] = self.context.time + seconds
        return free

    @txraft.command(raises=KeyError)
    def give_back(self, name: str, *, again: bool = False) -> None:
        """Let others have it."""
        self.leases[name] = 0.0
        if again:
            claimed: str | None = self.claim.here(1.0)
            use(claimed)

    @txraft.query
    def names(self) -> list[str]:
        """List all."""
        return [*self.leases]


@txraft.value
class Job:
    """A job."""

    name: str
    until: float = 0.0


async def call(jobs: Jobs) -> None:
    """Call commands and queries."""
    try:
        claimed: str | None = await jobs.claim(30.0)
        await jobs.give_back(claimed or "", again=True)
    except txraft.CommandFailed as error:
        use(error.__cause__)
    except (txraft.CannotTravel, txraft.CallRefused, txraft.OnlyInCommands):
        names: list[str] = await jobs.names()
        names = jobs.names.stale()
        use(names, Job("a").until)


async def wrong_calls(jobs: Jobs) -> None:
    """Call as one must not: a line of which mypy finds nothing wrong is an error."""
    await jobs.claim("30")  # type: ignore[arg-type]
    await jobs.claim()  # type: ignore[call-arg]
    name: str = await jobs.claim(1.0)  # type: ignore[assignment]
    numbers: list[int] = await jobs.names()  # type: ignore[assignment]
    number: int = jobs.claim.here(1.0)  # type: ignore[assignment]
    jobs.claim(1.0)  # type: ignore[unused-awaitable]
    use(name, numbers, number, Job(name=1))  # type: ignore[arg-type]


async def batteries() -> None:
    """Use what is ready."""
    counts: txraft.ReplicatedDict[str, int] = txraft.ReplicatedDict()
    queue: txraft.ReplicatedQueue[str] = txraft.ReplicatedQueue()
    urgent: txraft.ReplicatedPriorityQueue[bytes] = txraft.ReplicatedPriorityQueue()
    lock = txraft.ReplicatedLock()
    count: int | None = await counts.get("a")
    id: int = await queue.put("job") + await urgent.put(b"job", 1.0)
    claim: txraft.Claim | None = await queue.claim(30.0)
    token: int | None = await lock.acquire("me", 10.0)
    await counts.set("a", "b")  # type: ignore[arg-type]
    use(count, id, claim, token)


async def member(jobs: Jobs, machine: FSM) -> None:
    """Run a whole member with objects, and one with a state machine."""
    node = txraft.Node("data", jobs, address="127.0.0.1:8400", others=Jobs())
    async with node:
        answer: txraft.Outcome[str | None] = jobs.claim(30.0)
        use(await answer)
    async with txraft.Node("more", machine, address="127.0.0.1:8401") as other:
        try:
            applied: ApplyResult = await other.apply(b"1", timeout=1.0)
            index: int = await other.linearizable()
            use(applied, index)
        except (txraft.OutcomeUnknown, txraft.ReadTimedOut) as error:
            use(error)
    use(txraft.NodeService(other))


def program(jobs: Jobs) -> None:
    """Be a program of one node."""
    txraft.run(member(jobs, counter))


async def forward(transport: txraft.WithForwarding) -> bool:
    """Open what takes commands to a leader."""
    pipeline: txraft.ForwardPipeline = await transport.forward_pipeline("b:1")
    return pipeline.is_open


class StampedCounter(Counter):
    """A counter whose commands begin with the term."""

    def stamp(self, data: bytes, term: int) -> bytes:
        """Put the term in."""
        return term.to_bytes(8, "big") + data[8:]


stamping: txraft.StampingFSM = StampedCounter()

# Stores --------------------------------------------------------------------------


class Stable:
    """A stable store of an application's own."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def set(self, key: bytes, value: bytes) -> None:
        """Store *value*."""
        self.set_many({key: value})

    def get(self, key: bytes) -> bytes:
        """Return a value."""
        return self._values.get(key, b"")

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store a number."""
        self.set(key, value.to_bytes(8, "big"))

    def get_uint64(self, key: bytes) -> int:
        """Return a number."""
        return int.from_bytes(self.get(key), "big")

    def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store several values at once."""
        self._values.update(values)


def in_files(path: Path, name: str) -> tuple[LogStore, StableStore, SnapshotStore]:
    """Open stores in files."""
    directory = txraft.DataDirectory(path, name)
    log = txraft.FileLog(directory.log, name)
    ranged: txraft.RangeLogStore = log
    two_step: txraft.TwoStepLogStore = log
    assert ranged.get_logs(1, 2, 3) is not None
    if (file := two_step.write_logs([])) is not None:
        written: txraft.Syncable = file
        written.sync_data()
        two_step.logs_synced()
    snapshots = txraft.FileSnapshotStore(directory.path, retain=2)
    sink: txraft.FileSnapshotSink = snapshots.create(1, 1, Configuration(), 0)
    staged: txraft.StagedSnapshotSink = sink
    with staged.stage() as source:
        use(source.read(), staged.set_aside())
    sink.cancel()
    snapshots.reap()
    stable = txraft.FileStableStore(directory.state, name)
    hinting: txraft.HintingStableStore = stable
    hinting.hint(hinting.hinted())
    return log, stable, snapshots


def in_memory() -> tuple[LogStore, StableStore, SnapshotStore]:
    """Make stores that nothing survives."""
    store = txraft.InmemStore()
    cache = txraft.LogCache(512, store)
    entries: list[Log] = [Log(1, 1, LogType.NOOP)]
    cache.store_logs(entries)
    cache.store_log(Log(2, 1, LogType.BARRIER))
    entry: Log = cache.get_log(cache.first_index())
    cache.delete_range(entry.index, cache.last_index())
    discarding: SnapshotStore = txraft.DiscardSnapshotStore()
    sink: SnapshotSink = txraft.DiscardSnapshotSink()
    sink.close()
    kept: SnapshotStore = txraft.InmemSnapshotStore()
    metas: list[SnapshotMeta] = kept.list()
    for meta in metas:
        opened: tuple[SnapshotMeta, BinaryIO] = kept.open(meta.id)
        assert opened[0].size + opened[0].index + opened[0].term
    return cache, Stable(), kept if metas else discarding


def offline(source: SnapshotReader, members: Configuration) -> None:
    """Do what operators do to a stopped node."""
    log, stable, snapshots = in_memory()
    recovered: SnapshotMeta
    try:
        recovered = txraft.recover_cluster(Counter(), log, stable, snapshots, members)
    except txraft.WrongApplication:
        recovered = txraft.import_snapshot(source, log, stable, snapshots, members)
    skipped: txraft.SkippedEntry | None = None
    try:
        skipped = txraft.skip_entry(log, stable, snapshots, 7, 1, "5743abddddfa08c1")
    except txraft.SkipRefused as error:
        use(str(error))
    use(recovered, skipped)


def peer_stores(path: Path) -> PeerStore:
    """Make a list of peers that people can read."""
    static: PeerStore = txraft.StaticPeers(["a:1"])
    stored: PeerStore = txraft.JSONPeers(path)
    stored.set_peers(static.peers())
    return stored


# Transports ----------------------------------------------------------------------


class Layer:
    """A stream layer of an application's own."""

    def __init__(self, client: IStreamClientEndpoint, port: IListeningPort) -> None:
        self._client = client
        self._port = port

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections."""
        return succeed(self._port)

    def dial(self, address: str) -> IStreamClientEndpoint:
        """Connect."""
        return self._client

    def addr(self) -> str:
        """Return an address."""
        return "a:1"


class Handler:
    """Takes requests without a `Raft`."""

    def rpc_received(self, rpc: txraft.IncomingRPC) -> None:
        """Answer."""
        command = rpc.command
        if isinstance(command, RequestVoteRequest):
            rpc.respond(txraft.RequestVoteResponse(command.term, granted=False))
        elif isinstance(command, txraft.RequestPreVoteRequest):
            rpc.respond(txraft.RequestPreVoteResponse(command.term, granted=False))
        elif isinstance(command, txraft.AppendEntriesRequest):
            rpc.respond(txraft.AppendEntriesResponse(command.term, 0, success=False))
        elif isinstance(command, txraft.InstallSnapshotRequest):
            body: txraft.SnapshotBody | None = rpc.body
            if body is not None:
                body.drain()
            rpc.respond(txraft.InstallSnapshotResponse(command.term, success=False))
        elif isinstance(command, txraft.TimeoutNowRequest):
            rpc.respond(txraft.TimeoutNowResponse(command.header))
        else:
            asked: txraft.ForwardRequest = command
            places = [(0, 0) for _ in asked.commands]
            rpc.respond(txraft.ForwardResponse(places))
        rpc.fail("no")

    def connection_closed(self, connection: object) -> None:
        """Forget it."""


class Nothing:
    """A snapshot of no bytes."""

    def read(self, size: int) -> Deferred[bytes]:
        """Read nothing."""
        return succeed(b"")

    def may_wait(self) -> bool:
        """Wait for ever."""
        return True


def in_process(clock: IReactorTime) -> Transport:
    """Make a transport on a clock."""
    address: str = txraft.new_inmem_addr(Random(1))
    transport = txraft.InmemTransport(clock, address)
    loopback: txraft.LoopbackTransport = transport
    with_peers: txraft.WithPeers = loopback
    with_close: txraft.WithClose = loopback
    with_peers.connect("b:1", transport)
    with_peers.disconnect("b:1")
    with_peers.disconnect_all()
    closed: Deferred[None] = with_close.close()
    use(closed, transport.is_shutdown)
    return transport


async def over_tcp(reactor: object, layer: StreamLayer, clock: IReactorTime) -> None:
    """Make transports over streams, and call a peer."""
    scale: int = txraft.DEFAULT_TIMEOUT_SCALE
    own = txraft.NetworkTransport(clock, layer, max_pool=3, timeout=10.0)
    own.timeout_scale = 2 * scale
    await own.listen()
    transport = await txraft.new_tcp_transport(reactor, "tcp:8300", "a:1")
    handler: txraft.RPCHandler = Handler()
    transport.set_handler(handler)
    transport.set_heartbeat_handler(handler.rpc_received)
    header = txraft.Header(1)
    vote: txraft.RequestVoteResponse = await transport.request_vote(
        "b:1", RequestVoteRequest(2, "a:1", 1, 1)
    )
    pipeline: txraft.AppendPipeline = await transport.append_entries_pipeline("b:1")
    appended: txraft.AppendEntriesResponse = await pipeline.append_entries(
        txraft.AppendEntriesRequest(vote.term, transport.local_addr(), header=header)
    )
    pipeline.close()
    patient: txraft.PatientSource = Nothing()
    source: txraft.SnapshotSource = patient
    limited: txraft.LimitedTransport = own
    txraft.validate_config(Config(), limited.limits)
    installed: txraft.InstallSnapshotResponse = await transport.install_snapshot(
        "b:1",
        txraft.InstallSnapshotRequest(appended.term, "a:1", 1, 1, 0, MEMBERS, 1),
        source,
    )
    use(installed.success, txraft.TCPStreamLayer)
    await transport.close()


MEMBERS = Configuration((Server("n1", "a:1", Suffrage.VOTER),))

# A node --------------------------------------------------------------------------


def configuration() -> Config:
    """Make a configuration with a field of each kind."""
    told: DeferredQueue[bool] = DeferredQueue(size=16)
    config = Config(heartbeat_timeout=0.5, election_timeout=1.0, notify=told.put)
    try:
        txraft.validate_config(config)
    except txraft.ConfigError as error:
        problems: list[str] = error.problems
        use(problems)
    return txraft.default_config()


def node(clock: Clock, path: Path) -> Raft:
    """Put a node together."""
    txraft.use_monotonic_time(clock)
    log, stable, snapshots = in_files(path, "a:1")
    return Raft(
        configuration(),
        counter,
        log,
        stable,
        snapshots,
        peer_stores(path),
        "a:1",
        in_process(clock),
        clock=clock,
        workers=Workers.threaded(clock),  # type: ignore[arg-type]
    )


async def commands(raft: Raft) -> int:
    """Use a node for what it is there for."""
    try:
        result: ApplyResult = await raft.apply(b"1", timeout=0.5)
        response: object = result.response
        barrier: int = await raft.barrier(1.0)
        await raft.verify_leader()
        return await raft.linearizable() + barrier + result.term + hash(response)
    except (NotLeader, LeadershipLost) as error:
        leader: str | None = error.leader
        use(leader)
    except (EnqueueTimeout, QueueFull, txraft.EntryTooLarge) as error:
        use(error.outcome)
    return 0


async def membership(raft: Raft) -> list[str]:
    """Change who is a member."""
    index: int = await raft.add_peer("b:1")
    index += await raft.remove_peer("b:1")
    index += await raft.add_voter("n2", "b:1")
    index += await raft.add_nonvoter("n3", "c:1")
    index += await raft.demote_voter("n2")
    index += await raft.remove_server("n2")
    try:
        await raft.set_peers(["a:1"])
    except (txraft.NodeIsLeader, ConfigurationRefused, txraft.UnknownPeer):
        await raft.transfer_leadership("b:1")
    return raft.peers()


async def life(raft: Raft) -> None:
    """Start, look at, and stop a node."""
    await raft.start()
    leader: str = await raft.when_leader()
    meta: SnapshotMeta = await raft.snapshot()
    figures: dict[str, str] = raft.stats()
    state: RaftState = raft.state
    heard: float | None = raft.last_contact
    indexes: tuple[int, ...] = (raft.last_index, raft.applied_index, raft.commit_index)
    use(str(raft), leader, meta, figures, state, heard, indexes)
    use(raft.leader, raft.term, raft.address)
    await raft.shutdown()
    stopped: RaftError | None = await raft.when_stopped()
    assert isinstance(stopped, txraft.NodeFailed)


def observe(raft: Raft) -> None:
    """Be told of what happens."""
    news: FilterFn = lambda o: isinstance(o.data, LeaderObservation)  # noqa: E731
    queue: DeferredQueue[Observation] = DeferredQueue(size=10)
    observer = Observer(queue.put, news, blocking=True)
    raft.register_observer(observer)
    raft.deregister_observer(observer)
    counts: int = observer.num_observed + observer.num_dropped
    edges: DeferredQueue[bool] = DeferredQueue(size=counts)
    end = raft.leader_ch(edges.put)
    end()


# Helpers and errors --------------------------------------------------------------


def lists(peers: list[str]) -> bool:
    """Handle lists of peers."""
    peers = txraft.add_unique_peer(peers, "b:1")
    peers = txraft.exclude_peer(peers, txraft.decode_peer(txraft.encode_peer("b:1")))
    return txraft.peer_contained(peers, "b:1")


ERRORS: tuple[type[RaftError], ...] = (
    txraft.CallTimedOut,
    txraft.ContractBroken,
    txraft.WrongThread,
    txraft.NodeRemoved,
    txraft.ConnectionClosedByPeer,
    txraft.ConnectionFailed,
    txraft.DataCorrupted,
    txraft.DirectoryLocked,
    txraft.FormatTooNew,
    txraft.KnownPeer,
    txraft.NotAdmitted,
    txraft.LogNotFound,
    txraft.NotAdvertisable,
    txraft.NothingNewToSnapshot,
    txraft.PipelineReplicationNotSupported,
    txraft.PipelineShutdown,
    txraft.ProtocolError,
    txraft.RaftShutdown,
    txraft.RemoteError,
    txraft.ShutdownWhileCommitting,
    txraft.SnapshotFailed,
    txraft.StorageError,
    txraft.ThreadRefused,
    txraft.TransferFailed,
    txraft.UnknownCommand,
    txraft.TransferInProgress,
    txraft.TransportError,
    txraft.TransportShutdown,
    txraft.WrongCluster,
    txraft.WrongDirectory,
    txraft.WrongNode,
)
