"""Whole clusters on one clock, for tests of a state machine or of this package."""

from txraft.testing.clock import HeapClock
from txraft.testing.cluster import Cluster, ListFSM, Node
from txraft.testing.simulated import (
    NodeStopped,
    ReplicasDiffer,
    SimulatedCluster,
    snapshot_digest,
)

__all__ = [
    "Cluster",
    "HeapClock",
    "ListFSM",
    "Node",
    "NodeStopped",
    "ReplicasDiffer",
    "SimulatedCluster",
    "snapshot_digest",
]
