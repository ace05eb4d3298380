"""The client of a flood, in a process of its own.

python -m tests.floods.attack KIND PORT COUNT SECONDS CERTIFICATE KEY
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.security.forgery import Pair
from tests.security.members import client_context

PIECE = bytes(1 << 16)
HALF_REQUEST = b"PUT /v1/kv/k HTTP/1.1\r\nHost: n1\r\nContent-Length: 100\r\n\r\nhalf"
ANNOUNCEMENT = b"\x00\x81\xa7Entries\x91\x81\xa4Data\xc6\x80\x00\x00\x00"
ELSEWHERE = "127.0.0.66"
"""Where floods of strangers come from: not the address of a member."""

Flood = Callable[[int, int, float, Pair], int]


def _hold(port: int, count: int, seconds: float, data: bytes) -> int:
    """Keep *count* connections going that send *data* and no more; count them.

    What is closed is opened again, until the time is over.
    """
    selector = selectors.DefaultSelector()
    until = time.monotonic() + seconds
    begun = 0
    while time.monotonic() < until:
        for _ in range(min(512, count - len(selector.get_map()))):
            connection = socket.socket()
            connection.setblocking(False)
            connection.bind((ELSEWHERE, 0))
            connection.connect_ex(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_WRITE)
            begun += 1
        for key, events in selector.select(0.01):
            connection = key.fileobj  # type: ignore[assignment]
            if not _went_on(connection, events, data):
                selector.unregister(connection)
                connection.close()
            elif events & selectors.EVENT_WRITE:
                selector.modify(connection, selectors.EVENT_READ)
    return begun


def _went_on(connection: socket.socket, events: int, data: bytes) -> bool:
    """Send *data* once connected; tell whether the connection is still open."""
    try:
        if events & selectors.EVENT_WRITE:
            return connection.send(data) == len(data)
        return bool(connection.recv(1 << 16))
    except BlockingIOError:
        return True
    except OSError:
        return False


def connections(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Open connections that never say anything."""
    return _hold(port, count, seconds, b"")


def handshakes(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin handshakes and never go on."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context(None).wrap_bio(incoming, outgoing).do_handshake()
    return _hold(port, count, seconds, outgoing.read()[:200])


def requests(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin HTTP requests and never go on."""
    return _hold(port, count, seconds, HALF_REQUEST)


def frames(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Announce 2 GiB on each of a few connections of a true member, and send them."""
    context, until, sent = client_context(pair), time.monotonic() + seconds, 0
    open_ones: list[ssl.SSLSocket] = []
    while time.monotonic() < until:
        while len(open_ones) < min(count, 16):
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", port), 1.0)
                secure = context.wrap_socket(plain)
                secure.sendall(ANNOUNCEMENT)
                open_ones.append(secure)
        for secure in list(open_ones):
            try:
                secure.sendall(PIECE)
                sent += len(PIECE)
            except OSError:
                open_ones.remove(secure)
                secure.close()
    return sent


def deafness(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Listen in the place of a member, with its certificate, and never read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    until, kept = time.monotonic() + seconds, []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.1)
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                plain.settimeout(1.0)
                kept.append(context.wrap_socket(plain, server_side=True))
    return len(kept)


FLOODS: dict[str, Flood] = {
    "connections": connections,
    "handshakes": handshakes,
    "requests": requests,
    "frames": frames,
    "deafness": deafness,
}


def main() -> None:
    """Run one flood and print how much of it there was."""
    kind, port, count, seconds, certificate, key = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pair = Pair(Path(certificate), Path(key))
    print(FLOODS[kind](int(port), int(count), float(seconds), pair))


if __name__ == "__main__":
    main()
