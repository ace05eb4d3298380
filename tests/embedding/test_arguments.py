"""Tests of the arguments of a `Node`, which are checked before anything is opened."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txraft.config import Config
from txraft.core.configuration import Server
from txraft.embedding.arguments import member_settings
from txraft.embedding.host import MemberSettings
from txraft.errors import ConfigError

ME = "127.0.0.1:8400"
OTHERS = ["127.0.0.1:8401", "127.0.0.1:8402"]


def settings(**given: Any) -> MemberSettings:
    """Make settings of *given*, and what a `Node` passes for what is not."""
    absent = dict.fromkeys(("listen", "tls", "limits", "config", "server_id"))
    return member_settings(
        "data", **{"address": ME, "peers": (), "join": False, **absent, **given}
    )


class Arguments(SynchronousTestCase):
    """The rules are those of ``node.yaml``."""

    def problems(self, **given: Any) -> list[str]:
        """Return what is wrong with *given*."""
        error = self.assertRaises(ConfigError, settings, **given)
        assert error is not None
        return error.problems

    def test_address_alone(self) -> None:
        """A node listens at its address, and is a cluster of its own."""
        made = settings()

        self.assertEqual(made.listen, "tcp:8400:interface=127.0.0.1")
        self.assertEqual(made.peers, (Server(ME, ME),))

    def test_address_of_ipv6(self) -> None:
        """Its colons are no separators of an endpoint."""
        made = settings(address="[::1]:8400")

        self.assertEqual(made.listen, r"tcp6:8400:interface=\:\:1")

    def test_address_that_nobody_can_dial(self) -> None:
        """Others could not reach this node."""
        for address in ("0.0.0.0:8400", "8400", "", "host:0", None):
            (problem,) = self.problems(address=address)
            self.assertIn(f"address is {address!r}", problem)

    def test_listen(self) -> None:
        """An endpoint of Twisted may be given, and is checked."""
        self.assertEqual(settings(listen="tcp:9000").listen, "tcp:9000")
        (problem,) = self.problems(listen="unix:socket")
        self.assertIn("listen is 'unix:socket'", problem)

    def test_peers(self) -> None:
        """They may be any iterable of addresses."""
        made = settings(peers=iter([ME, *OTHERS]))

        self.assertEqual([peer.address for peer in made.peers], [ME, *OTHERS])

    def test_peers_with_ids(self) -> None:
        """At protocol version 3, members may have ids."""
        peers = [Server("a", ME), Server("b", OTHERS[0])]

        made = settings(peers=peers, server_id="a", config=Config(protocol_version=3))

        self.assertEqual(made.peers, tuple(peers))
        self.assertEqual(made.name, "a")

    def test_peers_that_are_refused(self) -> None:
        """Each fault is named with the way out."""
        (missing,) = self.problems(peers=OTHERS)
        (twice,) = self.problems(peers=[ME, ME, OTHERS[0]])[:1]
        (text,) = self.problems(peers=ME)
        (version,) = self.problems(peers=[Server(ME, ME), Server("b", OTHERS[0])])
        (own,) = self.problems(server_id="a")

        self.assertIn(f"add {ME}", missing)
        self.assertIn(f"the address {ME} twice", twice)
        self.assertIn("must be a list", text)
        self.assertIn("Config(protocol_version=3)", version)
        self.assertIn("Config(protocol_version=3)", own)

    def test_join(self) -> None:
        """One that joins bootstraps nothing."""
        self.assertEqual(settings(join=True).peers, ())
        (problem,) = self.problems(join=True, peers=[ME, *OTHERS])
        self.assertIn("together with join", problem)

    def test_limits(self) -> None:
        """They go by their names in ``node.yaml``, whatever they limit."""
        made = settings(limits={"max_inbound_connections": 12, "max_keys": 32})

        self.assertEqual(made.connections.max_inbound_connections, 12)
        self.assertEqual(made.messages.max_keys, 32)

    def test_limits_that_are_refused(self) -> None:
        """Unknown ones, such as those of HTTP; wrong kinds; contradictions."""
        (unknown,) = self.problems(limits={"max_body_bytes": 1})
        (kind,) = self.problems(limits={"max_keys": "many"})
        (zero,) = self.problems(limits={"handshake_timeout": 0.0})
        (low,) = self.problems(limits={"max_keys": 1})
        (contrary,) = self.problems(limits={"max_outbound_connections": 100})
        (entry,) = self.problems(limits={"max_unsent_bytes": 1 << 20})[:1]

        self.assertIn("limits has no 'max_body_bytes'", unknown)
        self.assertIn("max_keys is 'many'", kind)
        self.assertIn("handshake_timeout is 0.0", zero)
        self.assertIn("max_keys", low)
        self.assertIn("max_idle_connections", contrary)
        self.assertIn("max_unsent_bytes", entry)

    def test_all_faults_at_once(self) -> None:
        """Whoever corrects one need not find the next by a second try."""
        found = self.problems(address="nowhere", limits={"none": 1}, listen="x")

        self.assertEqual(len(found), 3)

    def test_tls_that_is_refused(self) -> None:
        """Keys, paths, versions and names are checked before a file is read."""
        found = self.problems(
            tls={
                "certificate": "a.pem",
                "key": "a.key",
                "ca": 7,
                "minimum_version": "1.1",
                "server_names": {ME: "no name!"},
            }
        )

        self.assertEqual(len(found), 5)
        self.assertIn("tls has no 'key'", found[0])
        self.assertIn("tls lacks 'private_key'", found[1])
        self.assertIn("tls lacks 'ca'", found[2])
        self.assertIn("'1.1'", found[3])
        self.assertIn("'no name!'", found[4])

    def test_tls_with_a_shared_name(self) -> None:
        """By default the name is the host, and here all have the same."""
        files = {"certificate": "a.pem", "private_key": "a.key", "ca": "ca.pem"}

        (first, *_) = self.problems(tls=files, peers=[ME, *OTHERS])

        self.assertIn("share the name 127.0.0.1", first)
