"""The holder of a lock is stopped beyond its TTL, and goes on as if nothing had been.

Two processes work under one lock as fast as they can. Each piece of work is fenced: a
transaction that writes who holds the lock, if it still does. One of them is stopped, so
that it loses the lock to the other, and wakes up again in the middle of its work. The
history of what was written must show each holder at a time of its own.
"""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
import time

import consul

signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))
PORTS = [int(port) for port in sys.argv[1:]]
HOLDER = """
import base64, sys, threading, time, consul

client = consul.Consul(port=int(sys.argv[1]))
session = client.session.create("holder", ttl=10, lock_delay=1)

def renew():
    while True:
        time.sleep(2)
        try:
            consul.Consul(port=int(sys.argv[1])).session.renew(session)
        except consul.NotFound:
            return

threading.Thread(target=renew, daemon=True).start()
while not client.kv.put("lock", session, acquire=session):
    time.sleep(0.2)
fence = client.kv.get("lock")[1]["LockIndex"]
print(session, fence, flush=True)
value = base64.b64encode(f"{fence} {session}".encode()).decode()
while True:
    try:
        client.txn.put([
            {"KV": {"Verb": "check-session", "Key": "lock", "Session": session}},
            {"KV": {"Verb": "set", "Key": "work", "Value": value, "Flags": fence}},
            {"KV": {"Verb": "set", "Key": "clock", "Value":
                    base64.b64encode(str(time.monotonic()).encode()).decode()}},
        ])
    except consul.ConsulException as error:
        if "408" in str(error):  # stopped within a request, which was not run
            continue
        assert "409" in str(error), error
        print("refused", flush=True)
        break
"""


def start(port: int) -> subprocess.Popen[str]:
    """Start a process that works while it holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def said(process: subprocess.Popen[str]) -> list[str]:
    """Return the words of the next line of *process*."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def watch(history: list[tuple[int, str]]) -> None:
    """Note every change of who has worked, in its order."""
    client, index = consul.Consul(port=PORTS[2]), None
    while True:
        index, found = client.kv.get("work", index=index, wait="5s")
        if found is not None:
            fence, _, session = found["Value"].decode().partition(" ")
            if not history or history[-1] != (int(fence), session):
                history.append((int(fence), session))


history: list[tuple[int, str]] = []
threading.Thread(target=watch, args=(history,), daemon=True).start()
client = consul.Consul(port=PORTS[1])

first = start(PORTS[0])
first_session, first_fence = said(first)
second = start(PORTS[1])
time.sleep(13)
assert client.kv.get("lock")[1]["Session"] == first_session, "it was renewed"

first.send_signal(signal.SIGSTOP)
stopped = time.monotonic()
second_session, second_fence = said(second)
lived = time.monotonic() - stopped
assert lived > 8.0, f"the lock went to another after {lived:.1f} s, before the TTL"
assert int(second_fence) > int(first_fence)
time.sleep(1)

first.send_signal(signal.SIGCONT)
assert said(first) == ["refused"], "what it did after it had lost the lock"
assert first.wait(30) == 0
time.sleep(1)
assert second.poll() is None, "the other was not disturbed"
held = client.kv.get("lock")[1]
assert held["Session"] == second_session
assert history == [
    (int(first_fence), first_session),
    (int(second_fence), second_session),
], history
