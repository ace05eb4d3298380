"""The holder of a lock is stopped beyond its TTL: it loses the lock to another."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import consul

PORTS = [int(port) for port in sys.argv[1:]]
HOLDER = """
import sys, time, consul
client = consul.Consul(port=int(sys.argv[1]))
session = client.session.create("holder", ttl=10, lock_delay=1)
assert client.kv.put("lock", "holder", acquire=session)
print(session, flush=True)
while True:
    time.sleep(1)
    try:
        client.session.renew(session)
    except consul.NotFound:
        print("lost", flush=True)
        break
assert client.kv.put("work", "of the holder", cas=0) is False
"""

holder = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(PORTS[0])], stdout=subprocess.PIPE, text=True
)
assert holder.stdout is not None
session = holder.stdout.readline().strip()
client = consul.Consul(port=PORTS[1])
waiting = client.session.create("waiting", lock_delay=0)

time.sleep(12)
assert client.kv.get("lock")[1]["Session"] == session, "it was renewed"
holder.send_signal(signal.SIGSTOP)
stopped = time.monotonic()
while client.kv.get("lock")[1].get("Session") == session:
    index = client.kv.get("lock")[0]
    client.kv.get("lock", index=index, wait="5s")
lived = time.monotonic() - stopped
assert 8.5 < lived < 16, f"the lock was freed after {lived:.1f} s"
assert client.kv.put("lock", "", acquire=waiting) is False, "its delay has begun"
while not client.kv.put("lock", "waiting", acquire=waiting):
    time.sleep(0.2)
assert client.kv.put("work", "of the other", cas=0)

holder.send_signal(signal.SIGCONT)
assert holder.stdout.readline().strip() == "lost"
assert holder.wait(30) == 0
held = client.kv.get("lock")[1]
assert (held["Session"], held["LockIndex"]) == (waiting, 2)
