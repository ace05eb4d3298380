"""A disk whose syncs fail: strace answers them with EIO in place of the kernel."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.chaos.node import Node

EIO = "Input/output error"
SYNCS = "fsync,fdatasync"
FAULT_SECONDS = 4.0
END_SECONDS = 60.0


def break_syncs(node: Node, times: str) -> tuple[bool, str | None]:
    """Let the next sync of *node* fail, or all from now on (*times* `1` or `1+`).

    A node that has seen it must stop itself and say why, though a repetition would
    succeed: what was not written then may be lost for good.
    Returns: whether a sync has failed, and what was wrong with the node's answer.
    """
    if not node.runs:
        return False, None
    with NamedTemporaryFile(prefix="trace", dir=node.log.parent) as file:
        trace = Path(file.name)
        tracer = _trace(node.pid, times, trace)
        try:
            if not _has_failed(trace, node, tracer):
                return False, None
            node.excuses.add(EIO)
            status = node.wait_end(END_SECONDS)
        finally:
            _detach(tracer)
    if status is None:
        return True, f"n{node.number} goes on after a sync that failed:\n{node.output}"
    if status != 1 or EIO not in node.output:
        return True, f"n{node.number} ended {status} and does not say why it did"
    return True, None


def _trace(pid: int, times: str, trace: Path) -> subprocess.Popen[bytes]:
    words = ["strace", "-f", "-qq", "-p", str(pid), "-o", str(trace)]
    words += ["-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:error=EIO:when={times}"]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL)


def _has_failed(trace: Path, node: Node, tracer: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + FAULT_SECONDS
    while time.monotonic() < end and tracer.poll() is None and node.runs:
        if "INJECTED" in trace.read_text():
            return True
        time.sleep(0.02)
    return "INJECTED" in trace.read_text()


def _detach(tracer: subprocess.Popen[bytes]) -> None:
    tracer.send_signal(signal.SIGTERM)
    tracer.wait(END_SECONDS)
