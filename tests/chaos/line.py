"""Controls the relay of a node from outside: its process, and its orders."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from tests.chaos.commands import CHECKOUT, python
from tests.chaos.net import RELAY_GROUP, Net
from tests.chaos.relay import Conditions, Tally

START_SECONDS = 60.0
ANSWER_SECONDS = 30.0


class LineDown(AssertionError):
    """The relay does not answer: a fault of the means, not of a node."""


class Line:
    """The relay of node *number*, which has its socket in *directory*."""

    def __init__(self, net: Net, number: int, directory: Path) -> None:
        self._net = net
        self._number = number
        self._path = directory / f"relay{number}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the relay, and lead the connections of its node through it."""
        words = python("-m", "tests.chaos.relay", str(self._path))
        self._process = subprocess.Popen(
            [*self._net.within(self._number), *words],
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            group=RELAY_GROUP,
            start_new_session=True,
        )
        end = time.monotonic() + START_SECONDS
        while not self._path.exists():
            if time.monotonic() > end or self._process.poll() is not None:
                raise LineDown(f"relay {self._number} did not start")
            time.sleep(0.05)
        self._net.relay(self._number)

    def become(self, conditions: Conditions) -> Tally:
        """Change the conditions; return what has happened so far."""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(ANSWER_SECONDS)
                control.connect(str(self._path))
                control.sendall(json.dumps(asdict(conditions)).encode() + b"\n")
                with control.makefile() as answer:
                    return Tally(**json.loads(answer.readline()))
        except (OSError, ValueError) as error:
            raise LineDown(f"relay {self._number}: {error}") from error

    def stop(self) -> None:
        """End the relay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
