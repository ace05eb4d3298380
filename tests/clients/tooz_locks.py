"""tooz on its Consul driver: locks and groups, against nodes whose ports are given."""

from __future__ import annotations

import sys
import warnings

from tooz import coordination

PORTS = [int(port) for port in sys.argv[1:]]


def start(member: bytes, port: int) -> coordination.CoordinationDriver:
    coordinator = coordination.get_coordinator(f"consul://127.0.0.1:{port}", member)
    coordinator.start()
    return coordinator


warnings.simplefilter("ignore", DeprecationWarning)
one, other = start(b"one", PORTS[0]), start(b"other", PORTS[1])
mine, theirs = one.get_lock(b"lock"), other.get_lock(b"lock")
assert mine.acquire()
assert not theirs.acquire(blocking=False)
assert mine.release()
assert theirs.acquire(blocking=False)
assert theirs.release()

one.create_group(b"group").get()
try:
    other.create_group(b"group").get()
except coordination.GroupAlreadyExist:
    pass
else:
    raise AssertionError("the group exists")
one.join_group(b"group", b"able").get()
other.join_group(b"group").get()
assert set(one.get_members(b"group").get()) == {b"one", b"other"}
assert other.get_member_capabilities(b"group", b"one").get() == b"able"
assert one.get_groups().get() == [b"group"]
assert one.heartbeat() > 0
one.leave_group(b"group").get()
other.leave_group(b"group").get()
one.delete_group(b"group").get()
assert one.get_groups().get() == []
one.stop()
other.stop()
