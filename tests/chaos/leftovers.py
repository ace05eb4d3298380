"""`python -m tests.chaos.leftovers`: a run that is ended in the middle leaves nothing.

Runs are ended as the terminal, an operator and the kernel end them; afterwards no
process, mount, cable, namespace or file may be there that was not there before.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.commands import CHECKOUT, python
from tests.chaos.run import PLACE, SERVES, SIZE

START_SECONDS = 200.0
END_SECONDS = 30.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def main() -> int:
    """End runs in the middle; print what each has left; 1 if it was anything."""
    # What a shell starts behind its back ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    left = {ending.name: _end_in_the_middle(ending) for ending in ENDINGS}
    sys.stdout.write(json.dumps({"ended": len(left), "left": left}) + "\n")
    return 1 if any(left.values()) else 0


def _end_in_the_middle(ending: signal.Signals) -> list[str]:
    before = set(_things())
    words = python("-m", "tests.chaos", "--seconds", "60", "--verbose")
    run = subprocess.Popen(words, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for_trouble(run)
        family = set(_family(run.pid))
        assert len(family) >= SIZE, "there are no nodes"
        run.send_signal(ending)
        run.wait(END_SECONDS)
    finally:
        run.kill()
        run.wait()
    end = time.monotonic() + END_SECONDS
    while True:
        alive = {f"process {pid}" for pid, start in family if _start_of(pid) == start}
        left = alive | (set(_things()) - before)
        if not left or time.monotonic() > end:
            return sorted(left)
        time.sleep(0.1)


def _wait_for_trouble(run: subprocess.Popen[str]) -> None:
    """Wait until nodes serve and something was done to them."""
    assert run.stderr is not None, "it is a pipe"
    end = time.monotonic() + START_SECONDS
    serves = False
    for line in run.stderr:
        if serves or time.monotonic() > end:
            return
        serves = SERVES in line
    raise AssertionError("the run has ended before anybody ended it")


def _family(pid: int) -> Iterator[tuple[int, str]]:
    """Name a process and all that come from it, each with the moment of its start."""
    yield pid, _start_of(pid)
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            yield from _family(int(child))


def _start_of(pid: int) -> str:
    """Return when a process was started; "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return fields[19]


def _things() -> Iterator[str]:
    """Name mounts, devices, namespaces and places as a run has them."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if "txraft" in line or " /run" in line:
            yield f"mount {line}"
    for device in os.listdir("/sys/class/net"):
        yield f"device {device}"
    names = Path("/run/netns")
    for path in names.iterdir() if names.exists() else ():
        yield f"namespace {path}"
    if PLACE.exists():
        yield f"place {PLACE}"


if __name__ == "__main__":
    sys.exit(main())
