"""Ask this machine about its addresses, ports and user, without binding a port."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

from txraft.addresses import is_loopback

_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NONLOCAL = Path("/proc/sys/net/ipv4/ip_nonlocal_bind")
_STATUS = Path("/proc/self/status")
_CAPABILITIES = "CapEff:"
_BIND_SERVICE = 1 << 10
_ANY_PORT = 9


class LocalHost:
    """Asks the operating system about this machine."""

    def unresolved(self, host: str) -> str | None:
        """Return why *host* does not resolve, None if it does."""
        try:
            _addresses(host)
        except OSError as error:
            return error.strerror or str(error)
        except UnicodeError:
            return "it is no host name"
        return None

    def has(self, host: str) -> bool:
        """Tell whether an interface of this machine has the address *host*.

        The kernel is asked for the source address of a datagram to it: for an address
        of this machine, that is the address itself. Nothing is sent.
        """
        # With ip_nonlocal_bind any address can be bound, as for one that moves between
        # machines.
        if is_loopback(host) or _read(_NONLOCAL) == "1":
            return True
        try:
            found = _addresses(host)
        except OSError:  # a link-local address at an interface that is not there
            return False
        return any(_is_own(family, address) for family, address in found)

    def may_bind(self, port: int) -> bool:
        """Tell whether this process may listen at *port*; True if that is unknown."""
        least = _read(_UNPRIVILEGED)
        if not least.isdigit() or port >= int(least) or os.geteuid() == 0:
            return True
        for line in _read(_STATUS).splitlines():
            if line.startswith(_CAPABILITIES):
                return bool(int(line.removeprefix(_CAPABILITIES), 16) & _BIND_SERVICE)
        return True

    def user(self) -> int:
        """Return the user id of this process."""
        return os.geteuid()


def _addresses(host: str) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _is_own(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((address, _ANY_PORT))  # of a datagram socket: sends nothing
            source = asking.getsockname()[0]
    except OSError:
        return False
    return ip_address(source.partition("%")[0]) == ip_address(address.partition("%")[0])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another system than Linux, or a part of it that is hidden
        return ""
