"""Threads that ask nodes for one thing after another while these are in trouble."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from random import Random

from tests.chaos.api import TIMEOUT, Answer, ask
from tests.chaos.history import History
from tests.chaos.workloads import ATTEMPTS, Session, Workload

CLIENTS = 6
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.05


class AnyOf:
    """Asks one of *hosts*, chosen by *random*, another one at each request."""

    def __init__(self, hosts: Sequence[str], random: Random) -> None:
        self._hosts = hosts
        self._random = random

    def __call__(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask for one thing."""
        return ask(self._random.choice(self._hosts), method, path, body, headers)


class Clients:
    """Clients of the nodes at *hosts*; what they are told goes into *history*."""

    def __init__(
        self, hosts: Sequence[str], history: History, seed: int, reads: str
    ) -> None:
        self._stopped = threading.Event()
        self._workload = Workload()
        self._threads = []
        for number in range(CLIENTS):
            random = Random(seed * CLIENTS + number)
            asks = AnyOf(hosts, random)
            session = Session(f"client-{seed}-{number}", history, asks, reads)
            worker = threading.Thread(
                target=self._work, args=(session, random), daemon=True
            )
            self._threads.append(worker)

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for what is under way. Raises: AssertionError if one hangs."""
        self._stopped.set()
        for thread in self._threads:
            thread.join((ATTEMPTS + 2) * 2 * TIMEOUT)
            assert not thread.is_alive(), "a client hangs"

    def _work(self, session: Session, random: Random) -> None:
        pause = random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
        while not self._stopped.wait(pause):
            self._workload.act(session, random)
            pause = random.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
