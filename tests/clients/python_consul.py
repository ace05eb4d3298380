"""python-consul 1.1.0 on Twisted, against three nodes whose ports are given."""

from __future__ import annotations

import sys
from base64 import b64encode

import consul.std
from consul.base import NotFound
from consul.twisted import Consul
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater, react

PORTS = [int(port) for port in sys.argv[1:]]


@inlineCallbacks
def main(reactor):
    one, other = Consul(port=PORTS[0]), Consul(port=PORTS[1])
    assert (yield one.kv.put("k/é", "v", flags=3))
    index, found = yield other.kv.get("k/é")
    assert (found["Value"], found["Flags"]) == (b"v", 3)
    assert len((yield other.kv.get("k", recurse=True))[1]) == 1
    assert (yield other.kv.get("k", keys=True, separator="/"))[1] == ["k/"]
    assert (yield other.kv.get("absent"))[1] is None
    assert (yield one.kv.put("k/é", "x", cas=1)) is False

    waiting = other.kv.get("k/é", index=index, wait="20s")
    yield deferLater(reactor, 0.3)
    assert not waiting.called
    yield one.kv.put("k/é", "w")
    assert (yield waiting)[1]["Value"] == b"w"

    session = yield one.session.create("s", ttl=10, lock_delay=0)
    assert (yield other.session.info(session))[1]["Name"] == "s"
    assert (yield other.session.renew(session))["ID"] == session
    assert (yield one.kv.put("lock", "", acquire=session))
    assert (yield other.kv.get("lock"))[1]["Session"] == session
    assert (yield one.kv.put("lock", "", release=session))
    assert (yield one.session.destroy(session))
    try:
        yield one.session.renew(session)
    except NotFound:
        pass
    else:
        raise AssertionError("the session is gone")

    value = b64encode(b"t").decode()
    done = yield one.txn.put([{"KV": {"Verb": "set", "Key": "t", "Value": value}}])
    assert done["Errors"] is None
    assert len((yield one.catalog.nodes())[1]) == 3
    assert (yield one.agent.self())["Member"]["Name"] in (yield one.status.peers())
    assert (yield one.kv.delete("k", recurse=True))


standard = consul.std.Consul(port=PORTS[2])
assert standard.kv.put("std", "v")
assert standard.kv.get("std")[1]["Value"] == b"v"
react(main)
