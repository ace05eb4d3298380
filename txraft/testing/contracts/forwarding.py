"""The contract of a transport that forwards: order, and what was not sent."""

from __future__ import annotations

from typing import Any

from txraft.core.messages import ForwardRequest, Header
from txraft.errors import (
    CallTimedOut,
    ConnectionClosedByPeer,
    ConnectionFailed,
    PipelineShutdown,
    RemoteError,
    TransportShutdown,
)
from txraft.interfaces import WithForwarding
from txraft.testing.contracts.samples import Recorder, agree, append, success
from txraft.testing.contracts.transports import TransportContract

ASKS = Header(1, address="a:1")


class ForwardingTransportContract(TransportContract):
    """Tests of a `Transport` that is `WithForwarding`: its own, and these."""

    def forward_pipeline(self) -> Any:
        """Open a pipeline for commands from here to there."""
        opened = self.here.forward_pipeline("b:1")
        self.settle()
        return self.successResultOf(opened)

    def test_forwarding_fits_its_plug_point(self) -> None:
        """It has the methods of `WithForwarding`."""
        self.assertIsInstance(self.here, WithForwarding)

    def test_forwarded_commands_arrive_and_their_places_return(self) -> None:
        """Commands, and a question without any, reach the handler as they were sent."""
        self.there.set_handler(peer := Recorder(agree))
        pipeline = self.forward_pipeline()
        requests = [
            ForwardRequest((b"one", b"", bytes(1000)), ASKS),
            ForwardRequest((), ASKS),
        ]

        answers = [pipeline.forward(request) for request in requests]
        self.settle()

        self.assertEqual(peer.commands, requests)
        for request, answer in zip(requests, answers, strict=True):
            self.assertEqual(self.successResultOf(answer), success(request))

    def test_forwarded_messages_share_one_connection_of_their_own(self) -> None:
        """Many may be under way on one connection, on which nothing else is."""
        pipeline = self.forward_pipeline()
        for number in range(40):
            pipeline.forward(ForwardRequest((b"%d" % number,), ASKS)).addErrback(
                lambda _: None
            )
        self.here.append_entries("b:1", append(3)).addErrback(lambda _: None)
        self.settle()

        self.assertEqual(len(self.peer.rpcs), 41)
        connections = {
            id(rpc.connection): isinstance(rpc.command, ForwardRequest)
            for rpc in self.peer.rpcs
        }
        self.assertEqual(sorted(connections.values()), [False, True])
        self.here.close()

    def test_forwarded_messages_are_answered_in_order(self) -> None:
        """An answer that is ready early waits for those before it."""
        pipeline = self.forward_pipeline()
        fired: list[bytes] = []
        for name in (b"one", b"two"):
            answer = pipeline.forward(ForwardRequest((name,), ASKS))
            answer.addCallback(lambda _, name=name: fired.append(name))
        self.settle()

        self.peer.rpcs[1].respond(success(self.peer.rpcs[1].command))
        self.settle()
        self.assertEqual(fired, [])
        self.peer.rpcs[0].respond(success(self.peer.rpcs[0].command))
        self.settle()

        self.assertEqual(fired, [b"one", b"two"])

    def test_forward_refused_with_a_text_keeps_the_connection(self) -> None:
        """A RemoteError says that nothing was done, and the next message goes on."""
        pipeline = self.forward_pipeline()
        refused = pipeline.forward(ForwardRequest((b"one",), ASKS))
        self.settle()
        self.peer.rpcs[0].fail("not here")
        self.settle()

        self.failureResultOf(refused, RemoteError)
        self.assertTrue(pipeline.is_open)

    def test_forward_that_is_not_answered_in_time(self) -> None:
        """The wait is bounded, and the pipeline ends with it."""
        pipeline = self.forward_pipeline()
        late = pipeline.forward(ForwardRequest((b"one",), ASKS))
        self.settle()

        self.settle(self.timeout * 1.1)

        self.failureResultOf(late, CallTimedOut)
        self.assertFalse(pipeline.is_open)

    def test_forward_pipeline_whose_peer_goes(self) -> None:
        """What is under way fails, and the pipeline says that it takes no more."""
        pipeline = self.forward_pipeline()
        self.assertTrue(pipeline.is_open)
        flying = pipeline.forward(ForwardRequest((b"one",), ASKS))
        self.settle()

        self.there.close()
        self.settle()

        self.failureResultOf(flying, ConnectionClosedByPeer)
        self.assertFalse(pipeline.is_open)

    def test_forward_pipeline_that_is_closed(self) -> None:
        """Closing fails what is under way, and what comes later."""
        pipeline = self.forward_pipeline()
        flying = pipeline.forward(ForwardRequest((b"one",), ASKS))
        self.settle()

        pipeline.close()
        self.settle()

        self.assertFalse(pipeline.is_open)
        self.failureResultOf(flying, PipelineShutdown)
        self.failureResultOf(
            pipeline.forward(ForwardRequest((b"two",), ASKS)), PipelineShutdown
        )

    def test_forward_pipeline_to_nobody(self) -> None:
        """Nobody there, and a transport that is closed: nothing was sent."""
        unknown = self.here.forward_pipeline("nobody:1")
        self.settle()
        self.failureResultOf(unknown, ConnectionFailed)

        self.here.close()
        self.failureResultOf(self.here.forward_pipeline("b:1"), TransportShutdown)
