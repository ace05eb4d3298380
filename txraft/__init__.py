"""Raft consensus for Twisted: replicated, durable state inside your application.

The names that an application uses; `txraft.storage`, `txraft.transport` and
`txraft.testing` hold what to build a `Raft` from.
"""

from txraft.config import Config, default_config, validate_config
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry as Log
from txraft.core.entry import LogType
from txraft.errors import (
    ApplicationError,
    ConfigError,
    ConfigurationRefused,
    DataCorrupted,
    EnqueueTimeout,
    EntryTooLarge,
    KnownPeer,
    LeadershipLost,
    LogNotFound,
    NodeFailed,
    NodeIsLeader,
    NothingNewToSnapshot,
    NotLeader,
    QueueFull,
    RaftError,
    RaftShutdown,
    ShutdownWhileCommitting,
    SnapshotFailed,
    StorageError,
    TransferFailed,
    TransferInProgress,
    TransportError,
    UnknownPeer,
)
from txraft.interfaces import (
    FSM,
    AppendPipeline,
    BatchingFSM,
    FSMSnapshot,
    LogStore,
    LoopbackTransport,
    PeerStore,
    SnapshotMeta,
    SnapshotSink,
    SnapshotStore,
    StableStore,
    Transport,
    WithClose,
    WithPeers,
)
from txraft.node.observers import LeaderObservation, Observation, Observer
from txraft.node.pending import ApplyResult
from txraft.node.raft import Raft
from txraft.node.state import RaftState

__all__ = [
    "FSM",
    "AppendPipeline",
    "ApplicationError",
    "ApplyResult",
    "BatchingFSM",
    "Config",
    "ConfigError",
    "Configuration",
    "ConfigurationRefused",
    "DataCorrupted",
    "EnqueueTimeout",
    "EntryTooLarge",
    "FSMSnapshot",
    "KnownPeer",
    "LeaderObservation",
    "LeadershipLost",
    "Log",
    "LogNotFound",
    "LogStore",
    "LogType",
    "LoopbackTransport",
    "NodeFailed",
    "NodeIsLeader",
    "NotLeader",
    "NothingNewToSnapshot",
    "Observation",
    "Observer",
    "PeerStore",
    "QueueFull",
    "Raft",
    "RaftError",
    "RaftShutdown",
    "RaftState",
    "Server",
    "ShutdownWhileCommitting",
    "SnapshotFailed",
    "SnapshotMeta",
    "SnapshotSink",
    "SnapshotStore",
    "StableStore",
    "StorageError",
    "Suffrage",
    "TransferFailed",
    "TransferInProgress",
    "Transport",
    "TransportError",
    "UnknownPeer",
    "WithClose",
    "WithPeers",
    "default_config",
    "validate_config",
]
