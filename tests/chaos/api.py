"""Sends one request to a node, and classifies its outcome."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from tests.chaos.net import HTTP_PORT

TIMEOUT = 3.0
CONNECT_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered; *status* 0 stands for no answer.

    *is_done* and *is_refused* tell what certainly happened to a write; neither means
    that it may have been made, or may still be.
    """

    status: int
    body: bytes = b""
    outcome: str = ""
    sent: bool = True

    @property
    def is_done(self) -> bool:
        """Whether it was done."""
        return self.status == 200

    @property
    def is_refused(self) -> bool:
        """Whether it was not done, and never will be."""
        return not self.sent or self.outcome == "not-applied" or self.status == 409

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def ask(
    host: str,
    method: str,
    path: str,
    body: str | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Answer:
    """Make one request of the node at *host*."""
    connection = http.client.HTTPConnection(host, HTTP_PORT, timeout=CONNECT_TIMEOUT)
    try:
        connection.connect()
    except OSError:
        return Answer(0, sent=False)
    try:
        connection.sock.settimeout(timeout)
        connection.request(method, f"/v1/{path}", body, headers or {})
        answer = connection.getresponse()
        outcome = answer.headers.get("X-Txraft-Outcome", "")
        return Answer(answer.status, answer.read(), outcome)
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()
