"""One member of a PySyncObj cluster; writes are made inside its process.

    python -m benchmarks.members.pysyncobj ADDRESS PEER,PEER,... CONFIG_JSON

PySyncObj runs in a thread of its own. While writes are measured each callback, there,
makes the next write.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, SyncObjConsumer, replicated

from benchmarks.members.load import summary

POLL_SECONDS = 0.005
REPEAT_SECONDS = 0.5

LAST_SECONDS = 5.0
"""How long the last answers are waited for; now and then one never comes."""


class Map(SyncObjConsumer):
    """Keeps values by key.

    They are no attribute of a `SyncObj`: one made before its `__init__` is left out of
    snapshots, and compaction would cost next to nothing; one made after it may replace
    what has arrived already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, bytes] = {}

    @replicated
    def put(self, key: str, value: bytes) -> None:
        """Set one value."""
        self.values[key] = value


class Load:
    """A number of writes in flight, each followed by the next one."""

    def __init__(self, map: Map, inflight: int, size: int, keys: int) -> None:
        self._map = map
        self._inflight = inflight
        self._value = b"v" * size
        self._keys = keys
        self._sent = 0
        self._limit: int | None = None
        self._is_counted = False
        self._over = threading.Event()
        self.failure: Any = None
        self.answered = 0
        self.latencies: list[float] = []

    def start(self, limit: int | None = None) -> threading.Event:
        """Begin; the event is set once *limit* writes were answered, or one failed."""
        self._limit = limit
        self._is_counted = limit is not None  # as Go's: no latencies are kept
        for _ in range(self._inflight):
            self._send()
        return self._over

    def stop(self) -> threading.Event:
        """Send no more; the event is set when all that was sent is answered."""
        self._limit = self._sent
        return self._over

    def _send(self) -> None:
        if self._limit is not None and self._sent >= self._limit:
            if self.answered >= self._limit:
                self._over.set()
            return
        key = f"key-{self._sent % self._keys:06d}"
        self._sent += 1
        began = time.perf_counter()
        self._map.put(
            key,
            self._value,
            callback=lambda _, error: self._answered(error, began),
        )

    def _answered(self, error: Any, began: float) -> None:
        if error:
            self.failure = error
            self._over.set()
            return
        if not self._is_counted:
            self.latencies.append(time.perf_counter() - began)
        self.answered += 1
        self._send()


class Member:
    """Commands, each answered with what becomes JSON."""

    def __init__(self, node: SyncObj, map: Map) -> None:
        self._node = node
        self._map = map

    def status(self) -> dict[str, Any]:
        """Tell role and index."""
        node = self._node
        ready = node.isReady() and node.hasQuorum
        return {"leads": ready and node._isLeader(), "applied": node.raftLastApplied}

    def load(
        self,
        inflight: int,
        seconds: float,
        bytes: int,
        keys: int,
        warm_up: float = 0.5,
    ) -> dict[str, Any]:
        """Keep writes in flight for a while and tell their rate and latency."""
        load = Load(self._map, inflight, bytes, keys)
        over = load.start()
        over.wait(warm_up)
        load.latencies = []
        began = time.perf_counter()
        failed = over.wait(seconds)
        elapsed = time.perf_counter() - began
        found, load.latencies = load.latencies, []
        if failed:
            return {"error": f"a write failed: {load.failure}"}
        load.stop().wait(LAST_SECONDS)
        return summary(found, elapsed, load.answered)

    def fill(
        self, entries: int, bytes: int, keys: int, inflight: int = 512
    ) -> dict[str, Any]:
        """Make a number of writes."""
        load = Load(self._map, inflight, bytes, keys)
        began = time.perf_counter()
        load.start(entries).wait()
        if load.failure is not None:
            return {"error": f"a write failed: {load.failure}"}
        return {"seconds": time.perf_counter() - began}

    def commit(self, killed: str) -> dict[str, Any]:
        """Wait until a write of this node is committed, or another node leads."""
        while True:
            leader = self._node._getLeader()
            if self._node._isLeader():
                write = Load(self._map, 1, 0, 1)
                if write.start(1).wait(REPEAT_SECONDS) and write.failure is None:
                    return {"committed": True}
            elif leader is not None and leader.id != killed:
                return {"committed": False}
            time.sleep(POLL_SECONDS)


def main() -> None:
    """Take part until stdin closes."""
    address, peers, config = sys.argv[1:]
    others = [peer for peer in peers.split(",") if peer != address]
    began = time.perf_counter()
    map = Map()
    node = SyncObj(address, others, SyncObjConf(**json.loads(config)), [map])
    node.waitBinded()
    member = Member(node, map)
    print(json.dumps({"opened": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(member, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)
    node.destroy()


if __name__ == "__main__":
    main()
