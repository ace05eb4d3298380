"""Clusters in memory on a clock, for tests of your state machine and of this package.

`Cluster` runs real nodes without sockets, files or sleeps. `SimulatedCluster` adds
faults from a seed and compares the replicas. `txraft.testing.contracts` has the tests
that your own stores and transports must pass. `python -m txraft.testing simulate` runs
the package's own simulations.
"""

from txraft.testing.cluster import Cluster, ListFSM, Node
from txraft.testing.heap_clock import HeapClock
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
