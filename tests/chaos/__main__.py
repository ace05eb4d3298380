"""`python -m tests.chaos --seconds 60`: faults, clients, and then the verdict.

It needs root for the network namespaces that it makes and removes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

from tests.chaos.nodes import ChaosNode, Net
from txraft.testing.linearizability import Kind, NotLinearizable, Operation, check

SIZE = 5
CLIENTS = 4
KEYS = ("x", "y", "z")
TIMEOUT = 3.0
START_SECONDS = 60.0
RECOVERY_SECONDS = 60.0
LONGEST_RUN = 3_600


class Clients:
    """Threads that each ask one node for one thing after another."""

    def __init__(self, nodes: list[ChaosNode], seed: int) -> None:
        self.history: list[Operation] = []
        self.stopped = threading.Event()
        self._nodes = nodes
        self._lock = threading.Lock()
        self._moments = 0
        self._threads = [
            threading.Thread(target=self._work, args=(Random(seed + n),), daemon=True)
            for n in range(CLIENTS)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for what is under way."""
        self.stopped.set()
        for thread in self._threads:
            thread.join(4 * TIMEOUT)

    def _moment(self) -> int:
        with self._lock:
            self._moments += 1
            return self._moments

    def _work(self, random: Random) -> None:
        while not self.stopped.wait(random.uniform(0.005, 0.05)):
            kind = random.choice((Kind.READ, Kind.WRITE))
            self.ask(random.choice(self._nodes), kind, random.choice(KEYS))

    def ask(self, node: ChaosNode, kind: Kind, key: str) -> bool:
        """Ask *node* for one thing; tell whether it is known to have been done."""
        operation = Operation(kind, key, self._moment())
        if kind is Kind.WRITE:
            operation.argument = operation.called
            with self._lock:
                self.history.append(operation)
        status, body = request(node, kind, key, operation.argument)
        if kind is Kind.WRITE and (status, body.strip()) != (200, b"true"):
            return False
        if kind is Kind.READ:
            if status not in (200, 404):
                return False
            operation.result = int(body) if status == 200 else None
        operation.returned = self._moment()
        if kind is Kind.READ:
            with self._lock:
                self.history.append(operation)
        return True


def request(
    node: ChaosNode, kind: Kind, key: str, argument: int | None
) -> tuple[int, bytes]:
    """Make one request; status 0 stands for no answer."""
    connection = http.client.HTTPConnection(node.host, 8500, timeout=TIMEOUT)
    try:
        if kind is Kind.READ:
            connection.request("GET", f"/v1/kv/{key}?raw&consistent")
        else:
            connection.request("PUT", f"/v1/kv/{key}", body=str(argument))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Chaos:
    """Faults at *nodes*, as *random* says, with a bounded number at a time."""

    def __init__(self, net: Net, nodes: list[ChaosNode], random: Random) -> None:
        self.tally: Counter[str] = Counter()
        self._net = net
        self._nodes = nodes
        self._random = random
        self._can_trace = shutil.which("strace") is not None

    def step(self) -> None:
        """Do one thing, wait a while, and often undo all of it."""
        node = self._random.choice(self._nodes)
        fault = self._random.choice(
            (
                self._kill,
                self._kill,
                self._hang,
                self._unplug,
                self._silence,
                self._lose,
                self._fill,
                self._break_sync,
                self._kill_all,
            )
        )
        fault(node)
        time.sleep(self._random.uniform(0.3, 2.5))
        if self._random.random() < 0.6:
            self.heal()

    def heal(self) -> None:
        """End all faults, and start what does not run."""
        self._net.mend()
        for node in self._nodes:
            node.free_disk()
            node.signal(signal.SIGCONT)
            if not node.runs:
                node.start()

    def _kill(self, node: ChaosNode) -> None:
        self.tally["kills"] += node.runs
        node.kill()

    def _kill_all(self, node: ChaosNode) -> None:
        self.tally["restarts of all"] += 1
        for each in self._nodes:
            self._kill(each)
        self.heal()

    def _hang(self, node: ChaosNode) -> None:
        self.tally["pauses"] += 1
        node.signal(signal.SIGSTOP)

    def _unplug(self, node: ChaosNode) -> None:
        self.tally["partitions"] += 1
        self._net.unplug(node.number)

    def _silence(self, node: ChaosNode) -> None:
        self.tally["one-way cuts"] += 1
        for other in self._random.sample(range(1, SIZE + 1), 2):
            if other != node.number:
                self._net.silence(node.number, other)

    def _lose(self, node: ChaosNode) -> None:
        percent = self._random.choice((5, 15, 30))
        self.tally["losses"] += self._net.lose(node.number, percent)

    def _fill(self, node: ChaosNode) -> None:
        self.tally["disks full"] += 1
        node.fill_disk()

    def _break_sync(self, node: ChaosNode) -> None:
        if self._can_trace:
            self.tally["failing syncs"] += 1
            node.kill()
            node.start(failing_sync=self._random.randint(5, 60))


def inside(seconds: float, seed: int, prefix: str, directory: Path) -> int:
    """Run in the namespace of the hub; 1 if anything was found."""
    net = Net(prefix, SIZE)
    nodes = [ChaosNode(net, n, directory, SIZE) for n in range(1, SIZE + 1)]
    random = Random(seed)
    clients, chaos = Clients(nodes, seed), Chaos(net, nodes, random)
    findings: list[str] = []
    try:
        for node in nodes:
            node.prepare()
            node.start()
        if not progress(clients, START_SECONDS):
            findings.append("the cluster did not start")
        clients.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not findings:
            chaos.step()
        chaos.heal()
        clients.stop()
        if not findings and not progress(clients, RECOVERY_SECONDS):
            findings.append("no progress after healing")
    finally:
        for node in nodes:
            node.remove()
    try:
        undecided = check(clients.history)
    except NotLinearizable as error:
        undecided = 0
        findings.append(f"not linearizable: {error}")
    figures = {
        "seconds": seconds,
        "seed": seed,
        "operations": len(clients.history),
        "known": sum(operation.is_known for operation in clients.history),
        "undecided_keys": undecided,
        "faults": dict(chaos.tally),
        "findings": findings,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if findings else 0


def progress(clients: Clients, seconds: float) -> bool:
    """Wait until every node does a write and a read."""
    end = time.monotonic() + seconds
    for node in clients._nodes:
        while not all(clients.ask(node, k, KEYS[0]) for k in (Kind.WRITE, Kind.READ)):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Make the namespaces, run in them, and remove them."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    seconds = min(options.seconds, LONGEST_RUN)
    if options.inside:
        prefix, directory = options.inside
        return inside(seconds, options.seed, prefix, Path(directory))
    if os.geteuid() != 0 or shutil.which("ip") is None:
        sys.stderr.write("tests.chaos needs root and iproute2: it makes namespaces\n")
        return 2
    net = Net(f"txr{os.getpid()}", SIZE)
    directory = tempfile.mkdtemp(prefix="txraft-chaos-")
    try:
        net.create()
        words = ["ip", "netns", "exec", net.hub, sys.executable, "-m", "tests.chaos"]
        words += ["--seconds", str(seconds), "--seed", str(options.seed)]
        words += ["--inside", net.prefix, directory]
        patience = seconds + START_SECONDS + RECOVERY_SECONDS + 120
        return subprocess.run(words, check=False, timeout=patience).returncode
    finally:
        net.remove()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
