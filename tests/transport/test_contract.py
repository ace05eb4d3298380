"""Our transports through the contract: memory, streams, and latency."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.transport.memory import MemoryNetwork
from txraft.testing.contracts import LoopbackTransportContract, TransportContract
from txraft.transport.inmem import InmemTransport
from txraft.transport.network import NetworkTransport

TIMEOUT = TransportContract.timeout


class NetworkContract(TransportContract, SynchronousTestCase):
    """The contract, over stream transports in memory."""

    def make_pair(self) -> tuple[NetworkTransport, NetworkTransport]:
        network = MemoryNetwork(self.clock)
        pair = []
        for address in ("a:1", "b:1"):
            transport = NetworkTransport(
                self.clock, network.layer(address), timeout=TIMEOUT
            )
            self.successResultOf(transport.listen())
            pair.append(transport)
        return pair[0], pair[1]


class InmemContract(LoopbackTransportContract, SynchronousTestCase):
    """The contract, with objects on a clock."""

    def make_pair(self) -> tuple[InmemTransport, InmemTransport]:
        here = InmemTransport(self.clock, "a:1", timeout=TIMEOUT)
        there = InmemTransport(self.clock, "b:1", timeout=TIMEOUT)
        here.connect("b:1", there)
        there.connect("a:1", here)
        return here, there


class SlowInmemContract(InmemContract):
    """The same when each way takes time."""

    def make_pair(self) -> tuple[InmemTransport, InmemTransport]:
        here, there = super().make_pair()
        here.latency = 0.001
        return here, there

    def settle(self, seconds: float = 0) -> None:
        super().settle(seconds)
        self.clock.pump([0.001] * 40)
