"""Our transports through the contract: memory, streams, and latency."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.transports import MemoryNetwork
from txraft.errors import CallTimedOut
from txraft.testing.contracts import (
    ForwardingTransportContract,
    LoopbackTransportContract,
    TransportContract,
)
from txraft.testing.contracts.samples import BytesSource, snapshot
from txraft.transport.connection_limits import PIECE_BYTES
from txraft.transport.inmem import InmemTransport
from txraft.transport.network import NetworkTransport

TIMEOUT = TransportContract.timeout


class Patient(BytesSource):
    """A source that knows whether its receiver is alive."""

    waits = True

    def may_wait(self) -> bool:
        return self.waits


class PatientContract(ForwardingTransportContract):
    """The contract, and how long a snapshot is waited for."""

    def test_snapshot_is_waited_for_as_its_source_wants(self) -> None:
        """A receiver may restore it for as long as it is known to be alive."""
        source = Patient(b"0123456789")
        answer = self.here.install_snapshot("b:1", snapshot(10), source)
        self.settle()
        self.peer.rpcs[0].body.deliver_to(lambda piece: None)
        self.pass_seconds(1000)
        self.assertNoResult(answer)

        source.waits = False
        self.pass_seconds(30)

        self.failureResultOf(answer, CallTimedOut)

    def test_snapshot_that_gets_on_may_take_any_time(self) -> None:
        """One that does not is given up, although its source would wait on."""
        data = bytes(64 * PIECE_BYTES)
        source = Patient(data)
        answer = self.here.install_snapshot("b:1", snapshot(len(data)), source)
        self.settle()
        busy: list[Deferred[None]] = []

        def consume(piece: bytes) -> Deferred[None]:
            busy.append(Deferred())
            return busy[-1]

        self.peer.rpcs[0].body.deliver_to(consume).addErrback(lambda _: None)
        for _ in range(40):
            self.settle()
            self.clock.advance(1.0)
            busy[-1].callback(None)
        self.assertNoResult(answer)

        self.pass_seconds(30)

        self.failureResultOf(answer, CallTimedOut)

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.settle(1.0)


class NetworkContract(PatientContract, SynchronousTestCase):
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


class InmemContract(PatientContract, LoopbackTransportContract, SynchronousTestCase):
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
