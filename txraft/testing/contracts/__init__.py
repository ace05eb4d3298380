"""Contracts: tests that every implementation of a plug point must pass, yours too.

A contract is a class of tests without the thing to test. A subclass makes that, and is
a test case of trial:

.. code-block:: python

    class MyLogs(LogStoreContract, SynchronousTestCase):
        def make_log(self) -> LogStore:
            return MyLogStore(self.mktemp())
"""

from txraft.testing.contracts.forwarding import ForwardingTransportContract
from txraft.testing.contracts.fsm import FSMContract
from txraft.testing.contracts.logs import LogStoreContract, RangeLogStoreContract
from txraft.testing.contracts.loopbacks import LoopbackTransportContract
from txraft.testing.contracts.peer_stores import PeerStoreContract
from txraft.testing.contracts.snapshots import SnapshotStoreContract
from txraft.testing.contracts.stable import (
    HintingStableStoreContract,
    HintingStore,
    StableStoreContract,
)
from txraft.testing.contracts.streams import StreamLayerContract
from txraft.testing.contracts.transports import TransportContract

__all__ = [
    "FSMContract",
    "ForwardingTransportContract",
    "HintingStableStoreContract",
    "HintingStore",
    "LogStoreContract",
    "LoopbackTransportContract",
    "PeerStoreContract",
    "RangeLogStoreContract",
    "SnapshotStoreContract",
    "StableStoreContract",
    "StreamLayerContract",
    "TransportContract",
]
