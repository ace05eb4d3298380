"""Five real nodes, each in a network namespace with a small disk of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
TWISTD = "from twisted.scripts.twistd import run; run()"
DISK_SIZE = "24m"
STOP_SECONDS = 10.0
SETTINGS = """data_dir: data
listen: tcp:8300:interface={host}
advertise: {host}:8300
peers: [{peers}]
insecure_peers: true
http: {{listen: "tcp:8500:interface={host}", insecure: true}}
raft: {{heartbeat_timeout: 300ms, election_timeout: 300ms,
 leader_lease_timeout: 200ms, snapshot_interval: 2s, snapshot_threshold: 200,
 trailing_logs: 50}}
"""


def command(*words: str, check: bool = True) -> str:
    """Run a command and return what it writes."""
    done = subprocess.run(words, check=check, capture_output=True, text=True)
    return done.stdout


class Net:
    """A bridge in the namespace *prefix*-hub, and a namespace for each node."""

    def __init__(self, prefix: str, size: int) -> None:
        self.prefix = prefix
        self.hub = f"{prefix}-hub"
        self.names = [f"{prefix}-{number}" for number in range(1, size + 1)]
        self.can_filter = shutil.which("nft") is not None

    def host(self, number: int) -> str:
        """Return the address of node *number*."""
        return f"10.77.0.{number}"

    def create(self) -> None:
        """Make namespaces, bridge and cables."""
        command("ip", "netns", "add", self.hub)
        command("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        command("ip", "-n", self.hub, "addr", "add", "10.77.0.254/24", "dev", "br0")
        for device in ("lo", "br0"):
            command("ip", "-n", self.hub, "link", "set", device, "up")
        for number, name in enumerate(self.names, 1):
            self._attach(number, name)

    def _attach(self, number: int, name: str) -> None:
        command("ip", "netns", "add", name)
        ends = ("eth0", "type", "veth", "peer", f"port{number}", "netns", self.hub)
        command("ip", "-n", name, "link", "add", *ends)
        hub = ("ip", "-n", self.hub, "link", "set", f"port{number}")
        command(*hub, "master", "br0")
        command(*hub, "up")
        address = f"{self.host(number)}/24"
        command("ip", "-n", name, "addr", "add", address, "dev", "eth0")
        for device in ("lo", "eth0"):
            command("ip", "-n", name, "link", "set", device, "up")

    def remove(self) -> None:
        """Remove all that `create` made; what is in it goes too."""
        for name in (*self.names, self.hub):
            command("ip", "netns", "del", name, check=False)

    def unplug(self, number: int) -> None:
        """Cut node *number* off from everybody."""
        self._port(number, "down")

    def silence(self, number: int, other: int) -> None:
        """Let nothing get from node *number* to *other*."""
        route = ("route", "replace", "blackhole", f"{self.host(other)}/32")
        command("ip", "-n", self.names[number - 1], *route)

    def lose(self, number: int, percent: int) -> bool:
        """Let node *number* lose a part of what it gets, if packets can be filtered."""
        if not self.can_filter:
            return False
        rules = (
            "table ip chaos { chain input { type filter hook input priority 0; "
            f"numgen random mod 100 < {percent} drop; }}; }}"
        )
        name = self.names[number - 1]
        command("ip", "netns", "exec", name, "nft", rules)
        return True

    def mend(self) -> None:
        """End all cuts and losses."""
        for number, name in enumerate(self.names, 1):
            self._port(number, "up")
            flush = ("route", "flush", "type", "blackhole")
            command("ip", "-n", name, *flush, check=False)
            if self.can_filter:
                nft = ("ip", "netns", "exec", name, "nft", "flush", "ruleset")
                command(*nft, check=False)

    def _port(self, number: int, state: str) -> None:
        command("ip", "-n", self.hub, "link", "set", f"port{number}", state)


class ChaosNode:
    """Node *number*: its directory, and its process while it runs."""

    def __init__(self, net: Net, number: int, directory: Path, size: int) -> None:
        self.net = net
        self.number = number
        self.host = net.host(number)
        self.directory = directory / f"n{number}"
        self.process: subprocess.Popen[bytes] | None = None
        self._size = size

    def prepare(self) -> None:
        """Mount the disk and write the settings."""
        self.directory.mkdir()
        options = f"size={DISK_SIZE}"
        command("mount", "-t", "tmpfs", "-o", options, "txraft", str(self.directory))
        peers = ", ".join(f"{self.net.host(n)}:8300" for n in range(1, self._size + 1))
        text = SETTINGS.format(host=self.host, peers=peers)
        (self.directory / "node.yaml").write_text(text)

    def start(self, failing_sync: int | None = None) -> None:
        """Start the process; with *failing_sync*, that one of its syncs fails."""
        name = self.net.names[self.number - 1]
        words = ["ip", "netns", "exec", name]
        if failing_sync is not None:
            fault = f"inject=fdatasync:error=EIO:when={failing_sync}"
            words += ["strace", "-f", "-qq", "-o", "/dev/null", "-e", fault]
        words += [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "raft"]
        words += ["--config", str(self.directory / "node.yaml")]
        with (self.directory.parent / f"n{self.number}.out").open("ab") as output:
            self.process = subprocess.Popen(
                words,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process and those that it has started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(STOP_SECONDS)
        self.process = None

    def fill_disk(self) -> None:
        """Leave no room on the disk."""
        path = self.directory / "filler"
        command("dd", "if=/dev/zero", f"of={path}", "bs=64k", check=False)

    def free_disk(self) -> None:
        """Leave room again."""
        (self.directory / "filler").unlink(missing_ok=True)

    def remove(self) -> None:
        """Kill the process and unmount the disk."""
        self.kill()
        command("umount", "-l", str(self.directory), check=False)
