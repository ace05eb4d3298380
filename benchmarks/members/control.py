"""Commands on stdin, for members that run on Twisted."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import stdio
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.protocols.basic import LineOnlyReceiver

LONGEST_LINE = 1 << 20


class Control(LineOnlyReceiver):
    """Reads commands and answers them with what *member*'s methods return."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST_LINE

    def __init__(self, reactor: ReactorBase, member: Any) -> None:
        self._reactor = reactor
        self._member = member
        self.closed: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Carry out one command."""
        command = json.loads(line)
        done = ensureDeferred(getattr(self._member, command.pop("do"))(**command))
        done.addCallback(self.answer)
        done.addErrback(lambda f: self.answer({"error": f.getTraceback()}))

    def answer(self, answer: dict[str, Any]) -> None:
        """Write one answer."""
        self.sendLine(json.dumps(answer).encode())

    def connectionLost(self, reason: object = None) -> None:
        """End with the process that started this one."""
        self.closed.callback(None)


def take_commands(reactor: ReactorBase, member: Any, **greeting: Any) -> Deferred[None]:
    """Write *greeting* and take commands; fires when stdin is closed."""
    control = Control(reactor, member)
    stdio.StandardIO(control)
    control.answer(greeting)
    return control.closed
