"""The longest turn of the reactor, whatever is asked of a node with a million keys.

    python -m benchmarks turns [--keys 1000000]

Between two turns heartbeats go, so a turn that is too long costs a leader its
leadership. The state machine and the HTTP server are those of a node; beneath them,
instead of consensus, is one that commits at once. Each turn is timed by itself, in
processor time, which is no other process's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

from treq.client import HTTPClient
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.client import Agent

from benchmarks.figures import short
from benchmarks.options import make_parser
from benchmarks.report import Report
from benchmarks.tables import Table
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.daemon.garbage import ShortPauses
from txraft.http.limits import HTTPLimits
from txraft.http.site import make_site
from txraft.kv.commands import (
    CreateSession,
    Operation,
    encode_create_session,
    encode_put,
    encode_transact,
)
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind
from txraft.node.events import RaftState
from txraft.node.pending import ApplyResult
from txraft.node.worker import MemoryWorker

ADDRESS = "127.0.0.1:8300"
MANY = 20_000
"""Sessions, and keys with a lock delay, that end together."""

WATCHERS = 5000
GROUPS = 1000
"""Parts of all keys, each under a prefix of its own."""


class TurnClock:
    """A reactor's timers, without a reactor: each call that is due is a turn."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._skipped = 0.0
        self._calls: list[tuple[float, int, DelayedCall]] = []
        self._count = count()

    def seconds(self) -> float:
        """Tell the time, which passes as it does, and what was skipped."""
        return time.perf_counter() + self._skipped

    def callLater(
        self, delay: float, function: Callable[..., object], *args: Any, **named: Any
    ) -> DelayedCall:
        """Plan a call."""
        due = self.seconds() + delay
        call = DelayedCall(due, function, args, named, _ignore, _ignore, self.seconds)
        heappush(self._calls, (due, next(self._count), call))
        return call

    def timed(self, work: Callable[[], object]) -> None:
        """Do *work*, which is one turn."""
        began = time.thread_time()
        work()
        self.longest = max(self.longest, time.thread_time() - began)

    def run(self) -> None:
        """Take turns until nothing is due."""
        while self._calls and self._calls[0][0] <= (now := self.seconds()):
            _, _, call = heappop(self._calls)
            if call.cancelled:
                continue
            if call.getTime() > now:
                heappush(self._calls, (call.getTime(), next(self._count), call))
                continue
            call.called = 1
            self.timed(partial(call.func, *call.args, **call.kw))

    def skip(self, seconds: float) -> None:
        """Let time pass without work, in steps of a tenth of a second."""
        for _ in range(round(seconds * 10)):
            self._skipped += 0.1
            self.run()


def _ignore(_call: DelayedCall) -> None:
    """Find it out when it would be due."""


class Alone:
    """What HTTP needs of a node: a leader that commits at once."""

    address = leader = ADDRESS
    state = RaftState.LEADER
    last_contact = None
    term = 1
    configuration = Configuration.of_voters([ADDRESS])

    def __init__(self, fsm: KeyValueFSM) -> None:
        self.fsm = fsm
        self.index = 0

    def apply(self, data: bytes, timeout: float | None = None) -> Deferred[Any]:
        self.index += 1
        entry = Entry(self.index, 1, LogType.COMMAND, data)
        return succeed(ApplyResult(self.index, 1, self.fsm.apply(entry)))

    def barrier(self, timeout: float | None = None) -> Deferred[int]:
        return succeed(self.index)

    def linearizable(self) -> Deferred[int]:
        return succeed(self.index)

    def stats(self) -> dict[str, str]:
        return {"applied_index": str(self.index)}

    def watch_members(
        self, changed: Callable[[Configuration], object]
    ) -> Callable[[], None]:
        return lambda: None

    def register_observer(self, observer: object) -> None: ...

    def deregister_observer(self, observer: object) -> None: ...


class Connection(StringTransportWithDisconnection):
    """A connection whose client reads as fast as the kernel takes it."""

    paused = False

    def __init__(self, clock: TurnClock) -> None:
        super().__init__()
        self._clock = clock

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(data) >= 1 << 16 and not self.paused and self.producer is not None:
            self.paused = True
            self.producer.pauseProducing()
            self._clock.callLater(0, self._taken)

    def _taken(self) -> None:
        self.paused = False
        if self.producer is not None:
            self.producer.resumeProducing()

    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()

    def abortConnection(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None: ...


class Bench:
    """A node with *keys* keys."""

    def __init__(self, keys: int) -> None:
        self.clock = TurnClock()
        self.fsm = KeyValueFSM()
        self.fsm.later = lambda call: self.clock.callLater(0, call)
        self.node = Alone(self.fsm)
        limits = HTTPLimits(
            max_new_connections=10_000, max_new_connections_per_address=10_000
        )
        self.site = make_site(
            self.node,  # type: ignore[arg-type]
            self.fsm,
            HTTPClient(Agent(None)),
            self.clock,  # type: ignore[arg-type]
            limits,
            address=ADDRESS,
            url="http://127.0.0.1:8500",
            worker=MemoryWorker(),
        )
        for number in range(keys):
            each = encode_put(f"k/{number % GROUPS:03d}/{number:07d}", b"value")
            self.node.apply(each)

    def connect(self) -> tuple[Any, Connection]:
        channel, transport = self.site.buildProtocol(None), Connection(self.clock)
        transport.protocol = channel
        channel.makeConnection(transport)
        return channel, transport

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request, wait for the answer, and return its body."""
        channel, transport = self.connect()
        head = f"{method} /v1/{path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.clock.timed(lambda: channel.dataReceived(head.encode() + body))
        self.clock.run()
        answer, _, content = transport.value().partition(b"\r\n\r\n")
        if answer and b" 200 " not in answer.partition(b"\r\n")[0]:
            raise RuntimeError(f"{method} {path}: {answer!r} {content[:200]!r}")
        return content

    def longest_of(self, work: Callable[[], object]) -> float:
        """Return the seconds of the longest turn that *work* took."""
        self.clock.run()
        self.clock.longest = 0.0
        work()
        self.clock.run()
        for channel in list(self.site.channels):
            channel.transport.loseConnection()
        return self.clock.longest


def wake(bench: Bench, prefixes: int) -> float:
    """Let many wait under *prefixes* prefixes, and measure the change that wakes."""
    index = bench.fsm.index
    for number in range(WATCHERS):
        prefix = "k/000/new"[: 4 + number % prefixes]
        bench.ask("GET", f"kv/{prefix}?keys&separator=/&index={index}")
    change = encode_put("k/000/new", str(index).encode())
    return bench.longest_of(lambda: bench.clock.timed(lambda: bench.node.apply(change)))


def end_sessions(bench: Bench) -> float:
    """Measure the end of many sessions at once."""
    for number in range(MANY):
        made = CreateSession(f"s{number}", "", "", 0, False, 10_000)
        bench.node.apply(encode_create_session(made))
    found = bench.longest_of(lambda: bench.clock.skip(30))
    left = [id for id in bench.fsm.sessions if id.startswith("s")]
    if left:
        raise RuntimeError(f"{len(left)} sessions are left")
    return found


def hold(bench: Bench, lock_delay: bytes) -> str:
    """Make a session that holds many locks; return its id."""
    made = bench.ask("PUT", "session/create", b'{"LockDelay": "%b"}' % lock_delay)
    id: str = json.loads(made)["ID"]
    for number in range(MANY):
        lock = Operation(OperationKind.LOCK, f"l/{number}", session=id)
        bench.node.apply(encode_transact([lock]))
    return id


def end_session(bench: Bench) -> float:
    """Measure the end of a session that holds many locks."""
    id = hold(bench, b"0s")
    return bench.longest_of(lambda: bench.ask("PUT", f"session/destroy/{id}"))


def end_delays(bench: Bench) -> float:
    """Measure the end of many lock delays at once."""
    bench.ask("PUT", f"session/destroy/{hold(bench, b'1s')}")
    # A leader that stood still while they were made grants them that time.
    found = bench.longest_of(lambda: bench.clock.skip(60))
    if bench.fsm.delays:
        raise RuntimeError(f"{len(bench.fsm.delays)} lock delays are left")
    return found


def list_sessions(bench: Bench) -> float:
    """Measure a list of many sessions."""
    for number in range(MANY):
        if f"t{number}" not in bench.fsm.sessions:
            made = CreateSession(f"t{number}", "name", "node", 0, False, 0)
            bench.node.apply(encode_create_session(made))
    return bench.longest_of(lambda: bench.ask("GET", "session/list"))


def capture(bench: Bench) -> float:
    """Measure the capture of a snapshot, and letting go of it."""

    def take() -> None:
        captured = [bench.fsm.snapshot()]
        bench.clock.timed(lambda: captured.append(bench.fsm.snapshot()))
        captured.pop(0).release()
        bench.clock.timed(lambda: captured.pop().release())

    return bench.longest_of(take)


def transact(bench: Bench) -> float:
    """Measure a transaction that answers as many keys as it may."""
    trees = [{"KV": {"Verb": "get-tree", "Key": f"k/{n:03d}/"}} for n in range(16)]
    body = json.dumps(trees).encode()
    return bench.longest_of(lambda: bench.ask("PUT", "txn", body))


def asking(path: str) -> Callable[[Bench], float]:
    """Make a measurement of a `GET` of *path*."""
    return lambda bench: bench.longest_of(lambda: bench.ask("GET", path))


MEASURED: dict[str, Callable[[Bench], float]] = {
    "GET ?recurse, a tenth of the keys": asking("kv/k/0?recurse"),
    "GET ?keys, all": asking("kv/?keys"),
    "GET ?keys&separator=/": asking("kv/k/?keys&separator=/"),
    "a blocking query begins to wait": lambda bench: bench.longest_of(
        lambda: bench.ask("GET", f"kv/?keys&index={bench.fsm.index}&wait=1s")
    ),
    f"{WATCHERS} queries on one prefix are woken": lambda bench: wake(bench, 1),
    f"{WATCHERS} queries on five prefixes are woken": lambda bench: wake(bench, 5),
    "a transaction of get-tree": transact,
    f"GET session/list, {MANY} sessions": list_sessions,
    f"{MANY} sessions end": end_sessions,
    f"a session ends that holds {MANY} locks": end_session,
    f"{MANY} lock delays end": end_delays,
    "a snapshot is captured and let go of": capture,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write what was asked for."""
    parser = make_parser("turns", __doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="the least is told")
    options = parser.parse_args(arguments)
    report = Report("turns", options, [])
    # The pauses of the garbage collector are those of a node, which does this too.
    ShortPauses(time.perf_counter).startService()
    bench = Bench(options.keys)
    table = Table(f"The longest turn, {options.keys:,} keys", ["", "milliseconds"])
    report.data["milliseconds"] = {}
    for name, measure in MEASURED.items():
        found = [measure(bench) * 1000 for _ in range(options.rounds)]
        report.data["milliseconds"][name] = found
        # What else runs on the machine only ever adds to it.
        table.add(name, short(min(found)))
    report.add(table)
    report.finish()


if __name__ == "__main__":
    main()
