"""Calls of a node to its kernel that strace answers, or lets it die at.

A fault counts once strace has written that it was injected.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.chaos.node import Node

EIO = "Input/output error"
SYNCS = ("io_submit,fdatasync", "io_submit,fsync,fdatasync")
"""Those of the log alone, or of snapshots, terms and directories as well.

A kernel that takes no sync by `io_submit` has begun none, and a thread makes it.
"""

FAILED = re.compile(r"sync\(\d+<([^>]*)>\).*INJECTED")
CHANGES = (
    *("pwrite64", "io_submit", "fdatasync", "fsync"),
    *("rename", "ftruncate", "unlink", "mkdir"),
)
FAULT_SECONDS = 4.0
END_SECONDS = 60.0
DETACH_SECONDS = 5.0


def fail_syncs(node: Node, syncs: str, times: str) -> tuple[bool, str | None]:
    """Let the next of *syncs* of *node* fail, or all from now on.

    *syncs* is one of `SYNCS`, *times* `1` or `1+`, for each thread.
    A node that has seen it must stop itself and say why, and try none of them again,
    though that might succeed: what was not written then may be lost for good.
    Returns: whether a sync has failed, and what was wrong with the node's answer.
    """
    with _tracing(node, syncs, f"error=EIO:when={times}") as trace:
        if not _waited(lambda: "INJECTED" in trace.read_text(), node):
            return False, None
        node.excuses.add(EIO)
        status = node.wait_end(END_SECONDS)
        again = repeated(trace.read_text())
    if again:
        return True, f"n{node.number} has tried again what had failed: {again}"
    if status is None:
        return (
            True,
            f"n{node.number} goes on after a sync that failed:\n{node.last_lines}",
        )
    if status != 1 or EIO not in node.output:
        return True, f"n{node.number} ended {status} and does not say why it did"
    return True, None


def repeated(trace: str) -> list[str]:
    """List the files in what strace wrote of which more than one sync has failed."""
    counts = Counter(FAILED.findall(trace))
    return sorted(file for file, count in counts.items() if count > 1)


def kill_at(node: Node, change: str, when: int) -> bool:
    """Kill *node* at its call number *when* of those named *change*; tell if it was."""
    with _tracing(node, change, f"signal=SIGKILL:when={when}") as trace:
        return _waited(lambda: "killed by SIGKILL" in trace.read_text(), node)


@contextmanager
def _tracing(node: Node, calls: str, fault: str) -> Iterator[Path]:
    """Inject *fault* into *calls* of *node* for a while; yield what strace writes."""
    with NamedTemporaryFile(prefix="trace", dir=node.log.parent) as file:
        words = ["strace", "-f", "-y", "-qq", "-p", str(node.pid), "-o", file.name]
        words += ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
        tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        try:
            yield Path(file.name)
        finally:
            _detach(tracer)


def _detach(tracer: subprocess.Popen[bytes]) -> None:
    """Let go of the node: in order, unless a thread that just ends prevents it."""
    tracer.terminate()
    try:
        tracer.wait(DETACH_SECONDS)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait()


def _waited(happened: Callable[[], bool], node: Node) -> bool:
    end = time.monotonic() + FAULT_SECONDS
    while time.monotonic() < end and node.runs and not happened():
        time.sleep(0.02)
    return happened()
