"""Whole clusters on one clock, for tests of a state machine or of this package."""

from txraft.testing.cluster import Cluster, ListFSM, Node

__all__ = ["Cluster", "ListFSM", "Node"]
