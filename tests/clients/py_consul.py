"""py-consul, blocking and on asyncio, against three nodes whose ports are given."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from base64 import b64encode

import consul
import consul.aio

PORTS = [int(port) for port in sys.argv[1:]]


def main() -> None:
    clients = [consul.Consul(port=port) for port in PORTS]
    for client in clients:
        keys(client)
    conditions(*clients)
    blocking_queries(*clients)
    transactions(clients[0])
    sessions(*clients)
    status(clients[0])
    backups(*clients)
    asyncio.run(asynchronous())


def keys(client: consul.Consul) -> None:
    value = bytes(range(256))
    assert client.kv.put("k/é", value, flags=42)
    index, found = client.kv.get("k/é")
    assert (found["Value"], found["Flags"], found["Key"]) == (value, 42, "k/é")
    assert int(index) == found["ModifyIndex"]
    assert client.kv.put("k/empty", "")
    assert client.kv.get("k/empty")[1]["Value"] is None
    assert client.kv.put("k/deep/er", "v")
    assert [k["Key"] for k in client.kv.get("k/", recurse=True)[1]] == [
        "k/deep/er",
        "k/empty",
        "k/é",
    ]
    assert client.kv.get("k/", keys=True, separator="/")[1] == [
        "k/deep/",
        "k/empty",
        "k/é",
    ]
    assert client.kv.get("absent")[1] is None
    for consistency in ("consistent", "stale"):
        client.kv.get("k/é", consistency=consistency)
    assert client.kv.get("k/é", dc="dc1")[1] is not None
    assert client.kv.delete("k/", recurse=True)
    assert client.kv.get("k/", recurse=True)[1] is None


def conditions(one: consul.Consul, other: consul.Consul, _: consul.Consul) -> None:
    assert one.kv.put("c", "1", cas=0) is True
    assert other.kv.put("c", "2", cas=0) is False
    index = other.kv.get("c")[1]["ModifyIndex"]
    assert other.kv.put("c", "2", cas=index) is True
    assert one.kv.delete("c", cas=index) is False
    assert one.kv.delete("c", cas=one.kv.get("c")[1]["ModifyIndex"]) is True


def blocking_queries(*clients: consul.Consul) -> None:
    for waiting in clients:
        for change, query in (
            (lambda c: c.kv.put("w/k", str(time.time())), {}),
            (lambda c: c.kv.delete("w/k"), {"recurse": True}),
            (lambda c: c.kv.put("w/n", str(time.time())), {"keys": True}),
        ):
            key = "w/" if query else "w/k"
            clients[0].kv.put("w/k", str(time.time()))
            index, _ = waiting.kv.get(key, **query)
            timer = threading.Timer(0.3, change, [clients[1]])
            timer.start()
            begun = time.monotonic()
            changed, _ = waiting.kv.get(key, index=index, wait="20s", **query)
            assert 0.2 < time.monotonic() - begun < 10, "woken by the change"
            assert int(changed) > int(index)
            timer.join()
        begun = time.monotonic()
        assert waiting.kv.get("w/n", index=changed, wait="1s")[0] == changed
        assert time.monotonic() - begun > 0.9


def transactions(client: consul.Consul) -> None:
    value = b64encode(b"v").decode()
    done = client.txn.put(
        [
            {"KV": {"Verb": "set", "Key": "t", "Value": value}},
            {"KV": {"Verb": "get", "Key": "t"}},
        ]
    )
    assert [r["KV"]["Value"] for r in done["Results"]] == [None, value]
    try:
        client.txn.put(
            [
                {"KV": {"Verb": "delete", "Key": "t"}},
                {"KV": {"Verb": "check-index", "Key": "t", "Index": 1}},
            ]
        )
    except consul.ConsulException as error:
        told = str(error)
    else:
        told = "it was not rolled back"
    assert "409" in told, told
    assert client.kv.get("t")[1] is not None


def sessions(one: consul.Consul, other: consul.Consul, third: consul.Consul) -> None:
    mine = one.session.create("mine", ttl=10, lock_delay=0)
    theirs = other.session.create("theirs", behavior="delete", lock_delay=0)
    assert third.session.info(mine)[1]["Name"] == "mine"
    assert {s["ID"] for s in one.session.list()[1]} == {mine, theirs}
    node = one.agent.self()["Member"]["Name"]
    assert [s["ID"] for s in third.session.node(node)[1]] == [mine]
    assert one.session.renew(mine)["ID"] == mine

    assert one.kv.put("lock", "1", acquire=mine) is True
    assert other.kv.put("lock", "2", acquire=theirs) is False
    held = third.kv.get("lock")[1]
    assert (held["Session"], held["LockIndex"]) == (mine, 1)
    assert one.kv.put("lock", "1", release=mine) is True
    assert other.kv.put("lock", "2", acquire=theirs) is True
    assert one.kv.get("lock")[1]["LockIndex"] == 2
    assert other.session.destroy(theirs)
    assert one.kv.get("lock")[1] is None
    for use in (
        lambda: one.kv.put("lock", "", acquire=theirs),
        lambda: one.session.renew(theirs),
    ):
        try:
            use()
        except consul.ConsulException:
            continue
        raise AssertionError("the session is gone")
    one.session.destroy(mine)


def status(client: consul.Consul) -> None:
    peers = client.status.peers()
    assert len(peers) == 3
    assert client.status.leader() in peers
    assert {node["Node"] for node in client.catalog.nodes()[1]} == set(peers)
    assert len(client.health.state("any")[1]) == 3
    servers = client.operator.raft_config()["Servers"]
    assert sum(server["Leader"] for server in servers) == 1


def backups(one: consul.Consul, other: consul.Consul, third: consul.Consul) -> None:
    one.kv.put("saved", "v")
    archive = other.snapshot.save()
    one.kv.delete("saved")
    one.kv.put("later", "v")
    assert third.snapshot.restore(archive)
    assert one.kv.get("saved")[1]["Value"] == b"v"
    assert one.kv.get("later")[1] is None


async def asynchronous() -> None:
    async with consul.aio.Consul(port=PORTS[1]) as client:
        assert await client.kv.put("async", "v")
        index, found = await client.kv.get("async")
        assert found["Value"] == b"v"
        waiting = asyncio.ensure_future(client.kv.get("async", index=index, wait="20s"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await client.kv.put("async", "w")
        assert (await waiting)[1]["Value"] == b"w"


main()
