"""Watches: blocking queries in a row, and no state reported twice."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.support.client_cluster import ClientCase, answer, record, silence
from txraft.client import ClientLimits, Refused


def state(value: bytes, index: int) -> object:
    """Answer with the key `k`."""
    return answer(200, [record("k", value, index)], X_Consul_Index=str(index))


class Watches(ClientCase):
    """`async for` over the states of a key or of a prefix."""

    limits = ClientLimits(watch_wait=60.0)

    def watch(self, watch: object) -> list[object]:
        """Iterate in the background; return the list of what comes."""
        seen: list[object] = []

        async def run() -> None:
            async for found in watch:  # type: ignore[attr-defined]
                seen.append(found)

        self.running = Deferred.fromCoroutine(run())
        self.network.flush()
        return seen

    def test_changes(self) -> None:
        """Each query waits for what comes after the last answer."""
        self.a.script = [state(b"1", 7), state(b"2", 9), silence]

        seen = self.watch(self.client.watch("k"))

        self.assertEqual([found.value for found in seen], [b"1", b"2"])
        self.assertEqual(
            self.a.asked,
            [
                "GET /v1/kv/k",
                "GET /v1/kv/k?index=7&wait=60000ms",
                "GET /v1/kv/k?index=9&wait=60000ms",
            ],
        )

    def test_absent_and_unchanged(self) -> None:
        """Absence is a state; a wait that ends without a change is none."""
        absent = answer(404, X_Consul_Index="5")
        self.a.script = [absent, absent, state(b"1", 7), state(b"1", 7), silence]

        seen = self.watch(self.client.watch("k"))

        self.assertEqual([found and found.value for found in seen], [None, b"1"])

    def test_index_that_goes_back(self) -> None:
        """After a restore the indexes may be smaller: the watch begins anew."""
        self.a.script = [state(b"1", 70), state(b"2", 9), state(b"2", 9), silence]

        seen = self.watch(self.client.watch("k"))

        self.assertEqual([found.value for found in seen], [b"1", b"2"])
        self.assertEqual(self.a.asked[2], "GET /v1/kv/k")

    def test_prefix(self) -> None:
        """A prefix is watched as a whole."""
        self.a.script = [state(b"1", 7), answer(404, X_Consul_Index="8"), silence]

        seen = self.watch(self.client.watch_prefix("k"))

        self.assertEqual([len(found) for found in seen], [1, 0])
        self.assertEqual(self.a.asked[1], "GET /v1/kv/k?recurse=1&index=7&wait=60000ms")

    def test_nobody_answers_for_a_while(self) -> None:
        """A watch outlives an outage, however long."""
        self.a.script = [state(b"1", 7)]
        for node in (self.a, self.b, self.c):
            node.default = answer(500, b"down")
        seen = self.watch(self.client.watch("k"))
        self.pass_time(300, step=1.0)
        for node in (self.a, self.b, self.c):
            node.script = [state(b"2", 9)]
            node.default = silence

        self.pass_time(10)

        self.assertEqual([found.value for found in seen], [b"1", b"2"])

    def test_refused(self) -> None:
        """What is wrong with the request ends the watch."""
        self.a.script = [answer(403, b"no")]

        self.watch(self.client.watch("k"))

        self.failed(self.running, Refused)

    def test_cancel(self) -> None:
        """To cancel who iterates is all that it takes to end it."""
        self.a.script = [state(b"1", 7), silence]
        self.watch(self.client.watch("k"))

        self.running.cancel()

        self.failed(self.running, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
