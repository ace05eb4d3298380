"""Run a node of the installed package: write a key, read it, stop it in order."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

TIMEOUT = 20.0


def free_ports(count: int) -> list[int]:
    """Find ports of 127.0.0.1 that nobody uses, below the ephemeral ones."""
    found: list[int] = []
    for port in range(21000, 32000):
        with socket.socket() as candidate:
            if candidate.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("no free ports")


def request(
    port: int, method: str, query: str = "", body: bytes | None = None
) -> tuple[int, bytes]:
    """Ask once; a node that is not there yet answers with status 0."""
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, f"/v1/kv/smoke{query}", body)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        return 0, b""
    finally:
        connection.close()


def write_until(port: int, deadline: float) -> None:
    """Write the key, until the node is up and leads."""
    while (answer := request(port, "PUT", body=b"hello"))[0] != 200:
        if time.monotonic() > deadline:
            raise SystemExit(f"the write was not taken: {answer}")
        time.sleep(0.1)


def main() -> None:
    """Start, write, read, stop; leave nothing behind."""
    peers, http = free_ports(2)
    with tempfile.TemporaryDirectory() as directory:
        node = subprocess.Popen(  # noqa: S603 - our own program
            [
                *(str(Path(sys.executable).with_name("twistd")), "-n", "raft"),
                *("--listen", f"tcp:{peers}:interface=127.0.0.1"),
                *("--http-listen", f"tcp:{http}:interface=127.0.0.1"),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
        )
        try:
            write_until(http, time.monotonic() + TIMEOUT)
            answer = request(http, "GET", "?raw")
            if answer != (200, b"hello"):
                raise SystemExit(f"the read was answered with {answer}")
            node.send_signal(signal.SIGTERM)
            status = node.wait(5.0)
            if status != -signal.SIGTERM:
                raise SystemExit(f"the node ended with status {status}")
        finally:
            node.kill()
            node.wait()
    sys.stdout.write("a key was written and read, and the node stopped in order\n")


if __name__ == "__main__":
    main()
