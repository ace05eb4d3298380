"""The messages that forward to a leader, and the refusal of broken ones."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.messages import ForwardRequest, ForwardResponse, Header
from txraft.errors import ProtocolError
from txraft.wire.requests import (
    FORWARD,
    MAX_FORWARDED_COMMANDS,
    decode_request,
    encode_request,
)
from txraft.wire.responses import decode_response, encode_response
from txraft.wire.stream import MessageLimits, RequestReader, ResponseReader


class Requests(SynchronousTestCase):
    def test_type_is_far_from_those_of_go(self) -> None:
        self.assertEqual(encode_request(ForwardRequest([]))[0], 20)

    def test_commands_are_a_list_of_bytes(self) -> None:
        """What is no list of byte strings closes the connection."""
        for commands in (None, b"one", [1], [b"one", None], [[b"one"]]):
            fields = {b"Commands": commands}
            self.assertRaises(ProtocolError, decode_request, FORWARD, fields)

    def test_commands_are_bounded(self) -> None:
        most = [b""] * MAX_FORWARDED_COMMANDS
        decode_request(FORWARD, {b"Commands": most})

        fields = {b"Commands": [*most, b""]}
        self.assertRaises(ProtocolError, decode_request, FORWARD, fields)

    def test_limits_of_a_message_hold(self) -> None:
        """Bytes are bounded as in every message."""
        reader = RequestReader(MessageLimits(max_message_bytes=1000))
        reader.feed(encode_request(ForwardRequest([b"x" * 400] * 3)))
        self.assertRaises(ProtocolError, reader.read)


class Responses(SynchronousTestCase):
    def test_places_are_pairs_of_numbers(self) -> None:
        for numbers in (None, 7, [1], [1, -1], [1, b"x"], [[1, 2]]):
            fields = {b"Places": numbers}
            self.assertRaises(ProtocolError, decode_response, FORWARD, fields)

    def test_most_commands_fit_into_an_answer(self) -> None:
        """The largest places of as many commands as one request may have are read."""
        large = (1 << 64) - 1
        response = ForwardResponse(
            ((large, large),) * MAX_FORWARDED_COMMANDS, "n1:1", Header(3)
        )
        reader = ResponseReader()
        reader.feed(encode_response(response))

        self.assertEqual(reader.read(FORWARD), ("", response))
