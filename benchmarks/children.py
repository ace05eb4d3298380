"""Processes of a benchmark: started, asked by JSON lines, measured and ended."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import sample
from typing import Any

STOP_SECONDS = 20.0
LOG_TAIL_BYTES = 2000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHECKOUT = Path(__file__).parents[1]


class Child:
    """A process whose output besides answers goes to the file *log*.

    *talks* says whether it takes commands.
    """

    def __init__(self, command: Sequence[str], log: Path, talks: bool = True) -> None:
        self._name = Path(command[0]).name
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def read(self) -> dict[str, Any]:
        """Read one answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self._name} ended with {self._process.wait()}:\n{self._log_tail()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"{self._name}: {answer['error']}\n{self._log_tail()}")
        return answer

    def tell(self, **command: Any) -> None:
        """Send one command; its answer is to be read."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and read its answer."""
        self.tell(**command)
        return self.read()

    def kill(self) -> None:
        """End it at once, as SIGKILL does."""
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self) -> None:
        """Let it shut down in order, and end it if it does not."""
        if self._process.stdin is None:
            self._process.terminate()
        elif not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()

    def _log_tail(self) -> str:
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def fileno(self) -> int:
        """Return the descriptor that its answers come from."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()


def answers(children: Sequence[Child]) -> Iterator[dict[str, Any]]:
    """Yield one answer of each child, in the order in which they come."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, Child)
                yield key.fileobj.read()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, with all its threads."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mib(pid: int | str = "self") -> float:
    """Return the memory that a process holds, in MiB."""
    statm = Path(f"/proc/{pid}/statm").read_text()
    return int(statm.split()[1]) * PAGE_BYTES / 2**20


_ports = iter(sample(range(20_000, 32_000), 10_000))


def free_port() -> int:
    """Return a free port on loopback, below those that systems hand out."""
    for port in _ports:
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit("no free port is left")


def free_address() -> str:
    """Return a free address on loopback."""
    return f"127.0.0.1:{free_port()}"
