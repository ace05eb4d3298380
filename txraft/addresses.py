"""Parse and write addresses: `host:port`, nodes' URLs, Twisted's listen strings."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import Factory

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")
_NODE_NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,128}")
_KINDS = ("tcp", "tcp6")


@dataclass(frozen=True, slots=True)
class Listen:
    """The interface and port that a listen string binds; host "" is all of them."""

    host: str
    port: int

    @property
    def address(self) -> str | None:
        """The `host:port` that others can dial, None when it must be given."""
        return None if is_wildcard(self.host) else join_address(self.host, self.port)


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[ipv6]:port`.

    Raises: ValueError, whose text says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("no port")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif not _HOST.match(host):
        raise ValueError(f"{host!r} is no host name")
    # isascii: int() also takes the digits of other scripts, which nobody can dial.
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} is not in 1 to 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Write `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal_url(text: str) -> str:
    """Return the URL *text* as scheme and host, without anything else.

    Raises: ValueError for what is no plain URL of a node.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    plain = not (parts.path.rstrip("/") or parts.query or parts.fragment)
    # A request is written in ASCII: any other URL would fail only when it is used.
    plain = plain and text.isascii()
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise ValueError(f"{text!r} is no URL of a node, such as http://127.0.0.1:8500")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Tell whether *host* is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Tell whether *host* means every interface, so that nobody can dial it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def parse_listen(text: str) -> Listen:
    """Parse a Twisted endpoint string with Twisted's own parser.

    Nothing is opened: the endpoint listens on a stand-in for a reactor.
    Raises: ValueError, whose text says what is wrong.
    """
    kind = text.partition(":")[0]
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is not one of {', '.join(_KINDS)}")
    notes = _Notes()
    try:
        reactor = cast(IReactorCore, notes)
        endpoint = serverFromString(reactor, text)
    except TypeError as error:
        raise ValueError("its options are not understood") from error
    endpoint.listen(Factory())
    (listen,) = notes.listens
    if not 1 <= listen.port <= 65535:
        raise ValueError(f"port {listen.port} is not in 1 to 65535")
    return listen


class _Notes:
    """A stand-in for a reactor that records what an endpoint would bind."""

    def __init__(self) -> None:
        self.listens: list[Listen] = []

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> None:
        self.listens.append(Listen(interface, port))


def is_node_name(text: str) -> bool:
    """Tell whether *text* can be a node's name for clients."""
    return _NODE_NAME.fullmatch(text) is not None
