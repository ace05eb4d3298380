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

from tests.support.forgery import Pair
from tests.support.hostile_members import client_context

PIECE = bytes(1 << 16)
HEAD = b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
HALF_REQUEST = HEAD % 100 + b"half"
ANNOUNCEMENT = b"\x00\x81\xa7Entries\x91\x81\xa4Data"
DRIP_SECONDS = 0.5
ELSEWHERE = "127.0.0.66"
"""Where floods of strangers come from: not the address of a member."""

Flood = Callable[[int, int, float, Pair], int]


def _hold(
    port: int, count: int, seconds: float, data: bytes, drops: bytes = b""
) -> int:
    """Keep *count* connections going that send *data* and no more; count them.

    With *drops* each sends one byte of that every DRIP_SECONDS besides. What is closed
    is opened again, until the time is over.
    """
    selector = selectors.DefaultSelector()
    until = time.monotonic() + seconds
    begun, falls = 0, time.monotonic() + DRIP_SECONDS
    left = dict.fromkeys(range(0), drops)
    while time.monotonic() < until:
        if drops and time.monotonic() >= falls:
            falls += DRIP_SECONDS
            for key in list(selector.get_map().values()):
                drop, left[key.fd] = left[key.fd][:1], left[key.fd][1:]
                with contextlib.suppress(OSError):
                    key.fileobj.send(drop)  # type: ignore[union-attr]
        for _ in range(min(512, count - len(selector.get_map()))):
            connection = socket.socket()
            connection.setblocking(False)
            connection.bind((ELSEWHERE, 0))
            connection.connect_ex(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_WRITE)
            left[connection.fileno()] = drops
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


def nothing(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Do no harm: what the others are to be compared with."""
    time.sleep(seconds)
    return 0


def connections(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Open connections that never say anything."""
    return _hold(port, count, seconds, b"")


def handshakes(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin handshakes and never go on."""
    return _hold(port, count, seconds, _hello()[:200])


def drips(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin handshakes and go on byte by byte."""
    return _hold(port, count, seconds, _hello()[:20], _hello()[20:])


def _hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context(None).wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def requests(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin HTTP requests and never go on."""
    return _hold(port, count, seconds, HALF_REQUEST)


def drops(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Begin HTTP requests and go on byte by byte."""
    return _hold(port, count, seconds, HALF_REQUEST, bytes(90))


def bodies(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Send all but the end of bodies that are as long as a body may be."""
    selector, until, sent = selectors.DefaultSelector(), time.monotonic() + seconds, 0
    left: dict[int, int] = {}
    while time.monotonic() < until:
        for _ in range(min(64, count - len(selector.get_map()))):
            connection = socket.create_connection(("127.0.0.1", port), 5.0)
            connection.sendall(HEAD % (1 << 20))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_WRITE)
            left[connection.fileno()] = (1 << 20) - 1
        for key, _ in selector.select(0.01):
            connection = key.fileobj  # type: ignore[assignment]
            try:
                size = connection.send(PIECE[: left[key.fd]])
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(connection)
                connection.close()
                continue
            left[key.fd] -= size
            sent += size
            if not left[key.fd]:
                selector.modify(connection, selectors.EVENT_READ)
                left[key.fd] = 1
    return sent


def readers(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Ask for all that is there, one after the other, and read a byte of it."""
    request = b"GET /v1/kv/?recurse HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    kept, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        if len(kept) == count:
            time.sleep(0.1)
            continue
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", port), 5.0)
            connection.sendall(request)
            if connection.recv(1):
                kept.append(connection)
    return len(kept)


def frames(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Announce 2 GiB on each of a few connections of a true member, and send them."""
    return _send_on(port, count, seconds, pair, b"\xc6\x80\x00\x00\x00")


def unfinished(port: int, count: int, seconds: float, pair: Pair) -> int:
    """Send messages as large as one may be, all but their ends."""
    return _send_on(port, count, seconds, pair, b"\xc6\x03\xf0\x00\x00")


def _send_on(port: int, count: int, seconds: float, pair: Pair, header: bytes) -> int:
    context, until, sent = client_context(pair), time.monotonic() + seconds, 0
    open_ones: list[ssl.SSLSocket] = []
    while time.monotonic() < until:
        while len(open_ones) < min(count, 16):
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", port), 1.0)
                secure = context.wrap_socket(plain)
                secure.sendall(ANNOUNCEMENT + header)
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
    "nothing": nothing,
    "connections": connections,
    "handshakes": handshakes,
    "drips": drips,
    "requests": requests,
    "drops": drops,
    "bodies": bodies,
    "readers": readers,
    "frames": frames,
    "unfinished": unfinished,
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
