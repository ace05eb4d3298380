"""A bridge in this network namespace, and a namespace with a cable for each node."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tests.chaos.commands import command

PEER_PORT = 8300
HTTP_PORT = 8500
RELAY_PORT = 8400
RELAY_GROUP = 4242
NAMES = Path("/run/netns")


class Net:
    """The cables of nodes 1 to *size*, which can be cut and made to lose packets.

    Whoever makes it needs a network and mount namespace of its own, with which all of
    it vanishes.
    """

    def __init__(self, size: int) -> None:
        self._names = [f"n{number}" for number in range(1, size + 1)]

    @staticmethod
    def host(number: int) -> str:
        """Return the address of node *number*."""
        return f"10.77.0.{number}"

    @staticmethod
    def within(number: int) -> list[str]:
        """Return the words that make a command run in the namespace of a node."""
        return ["ip", "netns", "exec", f"n{number}"]

    def create(self) -> None:
        """Make namespaces, bridge and cables."""
        NAMES.mkdir(exist_ok=True)
        command("ip", "link", "add", "br0", "type", "bridge")
        command("ip", "addr", "add", f"{self.host(254)}/24", "dev", "br0")
        for device in ("lo", "br0"):
            command("ip", "link", "set", device, "up")
        for number, name in enumerate(self._names, 1):
            self._attach(number, name)

    def _attach(self, number: int, name: str) -> None:
        command("ip", "netns", "add", name)
        port = f"port{number}"
        ends = ("eth0", "netns", name, "type", "veth", "peer", "name", port)
        command("ip", "link", "add", *ends)
        command("ip", "link", "set", port, "master", "br0", "up")
        address = f"{self.host(number)}/24"
        command("ip", "-n", name, "addr", "add", address, "dev", "eth0")
        for device in ("lo", "eth0"):
            command("ip", "-n", name, "link", "set", device, "up")

    def relay(self, number: int) -> None:
        """Lead what node *number* connects to at its peers through its relay."""
        self._filter(
            number,
            f"table ip relay {{ chain output {{ type nat hook output priority -100; "
            f"tcp dport {PEER_PORT} meta skgid != {RELAY_GROUP} "
            f"redirect to :{RELAY_PORT}; }}; }}",
        )

    def unplug(self, number: int) -> None:
        """Cut node *number* off from everybody."""
        command("ip", "link", "set", f"port{number}", "down")

    def silence(self, number: int, other: int) -> None:
        """Let nothing get from node *number* to *other*."""
        route = ("route", "replace", "blackhole", f"{self.host(other)}/32")
        command("ip", "-n", f"n{number}", *route)

    def split(self, numbers: Collection[int]) -> None:
        """Cut the nodes *numbers* off from the others; clients still reach all."""
        everybody = range(1, len(self._names) + 1)
        for number in everybody:
            is_inside = number in numbers
            others = [n for n in everybody if (n in numbers) != is_inside]
            hosts = ", ".join(self.host(other) for other in others)
            self._input(number, f"ip saddr {{ {hosts} }} drop")

    def lose(self, number: int, percent: int) -> None:
        """Let node *number* lose a part of what it gets."""
        self._input(number, f"numgen random mod 100 < {percent} drop")

    def reject(self, number: int) -> None:
        """Let node *number* answer whatever its peers send with a reset."""
        self._input(number, f"tcp dport {PEER_PORT} reject with tcp reset")

    def mend(self) -> None:
        """End all cuts and losses."""
        for number, name in enumerate(self._names, 1):
            command("ip", "link", "set", f"port{number}", "up")
            flush = ("route", "flush", "type", "blackhole")
            command("ip", "-n", name, *flush, check=False)
            self._filter(number, "add table ip chaos; delete table ip chaos")

    def _input(self, number: int, rule: str) -> None:
        chain = "chain input { type filter hook input priority 0; "
        table = f"table ip chaos {{ {chain} iifname eth0 {rule}; }}; }}"
        self._filter(number, f"add table ip chaos; delete table ip chaos; {table}")

    def _filter(self, number: int, rules: str) -> None:
        command(*self.within(number), "nft", rules)
