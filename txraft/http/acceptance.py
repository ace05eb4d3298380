"""Ceasing to accept connections, without cutting those that were just made.

The kernel makes connections before a process accepts them. Those that wait when a
listening socket is closed are reset, and each may carry a request already: its client
never learns what became of it. So the kernel is first told to make no more of them, and
what it has made by then is accepted. Who comes meanwhile gets no answer, tries again a
second later as TCP does, and is refused then.

This works on Linux. Elsewhere what waits is accepted and the socket is closed, and a
connection that comes in between is reset.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import sys
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.task import deferLater

HANDSHAKE_SECONDS = 0.1
"""How long connections that have begun by then may take to be made: a round trip."""

ROUNDS = 100
"""How often a port is asked to accept what waits, each time many at once."""

SO_ATTACH_FILTER = 26
_FLAGS, _SYN = 13, 0x02
_PASS = 0xFFFFFFFF
_DROP_SYN = (
    (0x30, 0, 0, _FLAGS),  # load the byte of a segment that holds its flags
    (0x45, 0, 1, _SYN),  # unless it begins a connection, skip one
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, _PASS),  # take it
)
"""A program for the kernel's packet filter. Source: Linux, networking/filter."""


async def stop_accepting(port: IListeningPort, clock: IReactorTime) -> None:
    """Close *port*; whoever is connected to it by then is accepted first."""
    listening = getattr(port, "socket", None)
    if isinstance(listening, socket.socket) and listening.fileno() >= 0:
        if _drop_newcomers(listening):
            # Those whose handshake is under way are still taken: their clients may
            # be connected as they see it, and have sent a request.
            await deferLater(clock, HANDSHAKE_SECONDS)
        _accept_all(port, listening)
    await maybeDeferred(port.stopListening)


def _drop_newcomers(listening: socket.socket) -> bool:
    """Have the kernel begin no more connections; tell whether it does so."""
    if not sys.platform.startswith("linux"):
        return False
    program = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    named = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(held))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, named)
    except OSError:
        return False
    return True


def _accept_all(port: Any, listening: socket.socket) -> None:
    waiting = select.poll()
    waiting.register(listening, select.POLLIN)
    for _ in range(ROUNDS):  # a bound, as a port may fail to accept what waits
        if not waiting.poll(0):
            break
        port.doRead()
