"""No request of any size does more than a bounded number of steps in one turn.

A step is a call of a function. Heartbeats go between two turns, so what does more at
once costs a leader its leadership.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from tests.http.test_site import SiteCase, Transport
from tests.support.kv_commands import session
from tests.support.turns import WorkingClock, most_steps
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import encode_put

KEYS = 20_000
MOST_STEPS = 15_000
"""Of one turn. To look at each of the keys once takes three times as many."""


def get(target: str) -> bytes:
    return b"GET /v1/%s HTTP/1.1\r\nHost: n1\r\n\r\n" % target.encode()


class Turns(SiteCase):
    """A node with many keys, locks and sessions."""

    limits = HTTPLimits(max_new_connections=2000, max_new_connections_per_address=2000)

    make_clock = WorkingClock

    def setUp(self) -> None:
        super().setUp()
        for number in range(KEYS):
            self.node.commit(encode_put(f"k/{number % 200:03d}/{number:05d}", b"v"))

    def body_of(self, transport: Transport) -> bytes:
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertIn(b" 200 OK", head)
        return body

    def assert_bounded(self, *works: Callable[[], object]) -> None:
        self.assertLess(most_steps(self.clock, *works), MOST_STEPS)

    def assert_answered(self, target: str, count: int) -> None:
        channel, transport = self.connect()
        self.assert_bounded(lambda: channel.dataReceived(get(target)))
        self.assertEqual(len(json.loads(self.body_of(transport))), count)

    def test_list(self) -> None:
        for target, count in (
            ("kv/?recurse", KEYS),
            ("kv/?keys", KEYS),
            ("kv/k/?keys&separator=/", 200),
            ("kv/?keys&separator=/", 1),
        ):
            self.assert_answered(target, count)

    def test_names_cost_what_they_are(self) -> None:
        """What lies under a name is passed over, not read."""
        channel, _ = self.connect()

        steps = most_steps(
            self.clock, lambda: channel.dataReceived(get("kv/?keys&separator=/"))
        )

        self.assertLess(steps, 2000)

    def test_transaction(self) -> None:
        """One that reads nearly as many keys as it may."""
        trees = [{"KV": {"Verb": "get-tree", "Key": f"k/{n:03d}/"}} for n in range(128)]
        body = json.dumps(trees).encode()
        head = b"PUT /v1/txn HTTP/1.1\r\nHost: n1\r\nContent-Length: %d\r\n\r\n"
        channel, transport = self.connect()
        self.assert_bounded(lambda: channel.dataReceived(head % len(body) + body))
        self.assertEqual(
            len(json.loads(self.body_of(transport))["Results"]), 128 * KEYS // 200
        )

    def test_sessions(self) -> None:
        for number in range(10_000):
            self.node.commit(session(f"s{number}"))

        self.assert_answered("session/list", 10_000)

    def test_wait(self) -> None:
        """To wait, to be woken, and to find out how much has changed."""
        index = self.node.fsm.index
        for target in ("kv/?keys", "kv/k/1?recurse"):
            channel, transport = self.connect()
            ask = partial(channel.dataReceived, get(f"{target}&index={index}"))
            self.assertLess(most_steps(self.clock, ask), 5000)
            self.assertEqual(transport.value(), b"")

            change = encode_put("k/1/new", target.encode())
            self.assert_bounded(partial(self.node.commit, change))

            self.body_of(transport)
            index = self.node.fsm.index

    def test_wake_of_many(self) -> None:
        """Each of them has its own topic, or all the same."""
        index = self.node.fsm.index
        transports = []
        for number in range(300):
            prefix = "k/new"[: number % 5 + 1] if number % 2 else "k/new"
            channel, transport = self.connect()
            channel.dataReceived(get(f"kv/{prefix}?keys&separator=/&index={index}"))
            transports.append(transport)

        self.assert_bounded(lambda: self.node.commit(encode_put("k/new", b"v")))

        for transport in transports:
            self.body_of(transport)
