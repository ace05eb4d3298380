"""Tell systemd the state of the process, for `Type=notify`.

Source: sd_notify(3).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from twisted.logger import Logger

VARIABLE = "NOTIFY_SOCKET"


class Supervisor:
    """Sends states to the socket in *environment*; without one it does nothing."""

    log = Logger()

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get(VARIABLE)

    def tell(self, *states: str) -> None:
        """Send *states*, such as `READY=1`; a failure is logged and no more."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket, which begins with a NUL
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A systemd that hangs must not stop the reactor.
                sender.setblocking(False)
                sender.sendto("\n".join(states).encode(), address)
        except OSError as error:
            self.log.warn("systemd was not told: {reason}", reason=str(error))
