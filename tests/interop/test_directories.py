"""Snapshot directories and `peers.json` pass from one kind of server to the other."""

from __future__ import annotations

import json

from tests.interop.cluster import KINDS, InteropTestCase
from tests.interop.processes import Member, wait_until


class Imports(InteropTestCase):
    """A cluster begins with a snapshot of another one."""

    def check(self, kind: str, protocol: int) -> None:
        """Found a cluster of the other kind with the snapshot of a server of *kind*."""
        source = self.form([kind], protocol)[0]
        self.load(source, "before", 200)
        source.ask("snapshot")
        source.kill()
        other = next(k for k in KINDS if k != kind)
        members = [self.make(other, protocol) for _ in range(3)]

        for member in members:
            member.write_peers(members)
            member.start(imported=source.directory)

        leader = self.leader()
        self.load(leader, "after", 200)
        self.check_counted()
        addresses = [server["address"] for server in leader.ask("status")["servers"]]
        self.assertEqual(sorted(addresses), sorted(m.address for m in members))
        members[0].kill()
        members[0].start()
        self.wait_equal()

    def test_go_to_python_version_1(self) -> None:
        """What Go wrote at protocol version 1 is taken over."""
        self.check("go", 1)

    def test_go_to_python_version_3(self) -> None:
        """What Go wrote at protocol version 3 is taken over."""
        self.check("go", 3)

    def test_python_to_go_version_1(self) -> None:
        """What we wrote at protocol version 1 starts a Go cluster."""
        self.check("python", 1)

    def test_python_to_go_version_3(self) -> None:
        """What we wrote at protocol version 3 starts a Go cluster."""
        self.check("python", 3)


class Recovery(InteropTestCase):
    """The last server of a cluster is given another membership, offline."""

    def check(self, kinds: list[str], protocol: int) -> None:
        """Recover the last of *kinds* alone, then let a server of each kind join."""
        *lost, survivor = self.form(kinds, protocol)
        self.load(self.leader(), "before", 200)
        self.wait_equal()
        for member in (*lost, survivor):
            member.kill()

        survivor.write_peers([survivor])
        survivor.start(recover=True)

        wait_until("the survivor leads", lambda: survivor.leads)
        for kind in KINDS:
            joiner = self.make(kind, protocol)
            joiner.start()
            survivor.ask("add", **joiner.names)
        self.load(survivor, "after", 200)
        self.check_counted()

    def test_python_survives_version_1(self) -> None:
        """`peers.json` as a list of addresses."""
        self.check(["go", "go", "python"], 1)

    def test_python_survives_version_3(self) -> None:
        """`peers.json` as a list of ids and addresses."""
        self.check(["go", "go", "python"], 3)

    def test_go_survives_version_3(self) -> None:
        """A Go server is recovered, and Python servers join it."""
        self.check(["python", "python", "go"], 3)


class PeersFile(InteropTestCase):
    """`peers.json` founds a cluster, and then changes nothing."""

    def founded(self, protocol: int) -> list[Member]:
        """Start three Python servers from the same file; return them."""
        members = [self.make("python", protocol) for _ in range(3)]
        for member in members:
            member.write_peers(members)
            member.start(bootstrap=True)
        return members

    def check(self, protocol: int) -> None:
        """A Go server reads what we write; a file that differs is not obeyed."""
        members = self.founded(protocol)
        leader = self.leader()
        self.load(leader, "first", 100)
        names = {(s["id"], s["address"]) for s in leader.ask("status")["servers"]}
        self.assertEqual(names, {(m.id, m.address) for m in members})

        follower = next(m for m in members if m is not leader)
        follower.kill()
        follower.write_peers([follower])
        follower.start(bootstrap=True)
        self.leader()
        self.load(self.leader(), "second", 100)

        self.check_counted()
        self.assertEqual(len(follower.ask("status")["servers"]), 3)
        self.check_go_reads(leader)

    def check_go_reads(self, leader: Member) -> None:
        """Start a Go server from the file that *leader* keeps up to date."""
        written = leader.directory / "peers.json"
        for member in self.running:
            member.kill()
        go = self.make("go", leader.protocol)
        go.address, go.id = leader.address, leader.id
        go.directory.mkdir()
        (go.directory / "peers.json").write_bytes(written.read_bytes())
        go.start(bootstrap=True)
        servers = go.ask("status")["servers"]
        listed = json.loads(written.read_bytes())
        self.assertEqual(len(servers), len(listed))

    def test_version_1(self) -> None:
        """As a list of addresses."""
        self.check(1)

    def test_version_3(self) -> None:
        """As a list of ids and addresses."""
        self.check(3)
