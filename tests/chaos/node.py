"""A node: its small disk, its settings, and its process while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.chaos.api import ask
from tests.chaos.commands import CHECKOUT, command, python
from tests.chaos.net import HTTP_PORT, PEER_PORT, Net

TWISTD = "from twisted.scripts.twistd import run; run()"
DISK_SIZE = "24m"
STOP_SECONDS = 60.0
LINES = 12
SETTINGS = """data_dir: data
listen: tcp:{peer_port}:interface={host}
advertise: {host}:{peer_port}
{members}
insecure_peers: true
http: {{listen: "tcp:{http_port}:interface={host}", insecure: true}}
raft: {{heartbeat_timeout: 300ms, election_timeout: 300ms,
 leader_lease_timeout: 200ms, snapshot_interval: 2s, snapshot_threshold: 200,
 trailing_logs: 50}}
"""


class Node:
    """Node *number* of *size*, with its disk mounted below *directory*.

    *excuses* are texts: one must be in what the process wrote, if it has ended by
    itself. With *may_leave* it may also end in order, as who was removed does.
    """

    def __init__(self, number: int, size: int, directory: Path) -> None:
        self.number = number
        self.host = Net.host(number)
        self.address = f"{self.host}:{PEER_PORT}"
        self.directory = directory / f"n{number}"
        self.data = self.directory / "data"
        self.log = directory / f"n{number}.log"
        self.excuses: set[str] = set()
        self.may_leave = False
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0
        self._members = ", ".join(
            f"{Net.host(n)}:{PEER_PORT}" for n in range(1, size + 1)
        )

    def prepare(self) -> None:
        """Mount the disk and write the settings of a first member."""
        self.directory.mkdir()
        words = ("mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "txraft")
        command(*words, str(self.directory))
        self.configure_as_founder()

    def configure_as_founder(self) -> None:
        """Write settings that name all first members."""
        self.configure(f"peers: [{self._members}]")

    def configure(self, members: str) -> None:
        """Write settings: a list of `peers`, or `join: true`."""
        text = SETTINGS.format(
            host=self.host, members=members, peer_port=PEER_PORT, http_port=HTTP_PORT
        )
        (self.directory / "node.yaml").write_text(text)

    # The process ----------------------------------------------------------------

    def start(self) -> None:
        """Start the process."""
        assert not self.runs, f"n{self.number} runs already"
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        words = [*Net.within(self.number), *python("-c", TWISTD)]
        words += ["-n", "--pidfile=", "raft", "--config", "node.yaml"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                words,
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def signal(self, number: int) -> bool:
        """Send a signal to the process; tell whether there was one."""
        if not self.runs:
            return False
        os.kill(self.pid, number)
        return True

    def kill(self) -> bool:
        """End the process with SIGKILL; tell whether there was one."""
        return self._end(signal.SIGKILL)

    def terminate(self) -> bool:
        """End the process with SIGTERM, as an operator does."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> bool:
        """End the process, unless it has ended by itself: see `unexplained`."""
        was_running = self.signal(signal.SIGCONT)
        if was_running and self._process is not None:
            self._process.send_signal(number)
            self._process.wait(STOP_SECONDS)
            self._process = None
        return was_running

    def was_killed(self) -> None:
        """Take note that somebody else has killed the process."""
        assert self.wait_end(STOP_SECONDS) == -signal.SIGKILL, self.output
        self._process = None

    def wait_end(self, seconds: float) -> int | None:
        """Wait until the process ends by itself; its status, None if it does not."""
        assert self._process is not None, "it was started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    @property
    def output(self) -> str:
        """What the process, or the last one, has written."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[self._log_begin :].decode(errors="replace")

    @property
    def last_lines(self) -> str:
        """The end of what it has written."""
        return "\n".join(self.output.splitlines()[-LINES:])

    def unexplained(self) -> str | None:
        """Forget a process that has ended by itself; say so, if it had no excuse."""
        if self._process is None or self._process.poll() is None:
            return None
        status = self._process.returncode
        self._process = None
        if status == 0 and self.may_leave:
            return None
        if status == 1 and any(excuse in self.output for excuse in self.excuses):
            return None
        name = f"n{self.number}"
        return f"{name} ended by itself with status {status}:\n{self.last_lines}"

    def is_ready(self) -> bool:
        """Tell whether it knows a leader."""
        return self.runs and ask(
            self.host, "GET", "status/leader"
        ).body.strip() not in (
            b"",
            b'""',
        )

    # The disk -------------------------------------------------------------------

    def fill_disk(self) -> None:
        """Leave no room on the disk."""
        path = self.directory / "filler"
        command("dd", "if=/dev/zero", f"of={path}", "bs=64k", check=False)

    def free_disk(self) -> None:
        """Leave room again."""
        (self.directory / "filler").unlink(missing_ok=True)

    def wipe(self) -> None:
        """Lose the data directory."""
        assert not self.runs, "nobody takes a directory from under a process"
        shutil.rmtree(self.data)


def wait_until_ready(nodes: list[Node], seconds: float) -> Node | None:
    """Wait until all *nodes* know a leader; return one that does not in time."""
    end = time.monotonic() + seconds
    for node in nodes:
        while not node.is_ready():
            if time.monotonic() > end:
                return node
            time.sleep(0.1)
    return None
