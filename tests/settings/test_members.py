"""The first members in a settings file: addresses, or ids and addresses."""

from __future__ import annotations

from tests.support.settings import SettingsTestCase, voters
from txraft.core.configuration import Server
from txraft.settings.settings import effective

OWN = "127.0.0.1:8300"
VERSION_3 = "raft: {protocol_version: 3}\n"


class Listed(SettingsTestCase):
    """What is listed is what founds a cluster."""

    def test_ids_and_addresses(self) -> None:
        """Both forms may stand beside each other."""
        settings = self.load(
            f"id: n1\n{VERSION_3}peers:\n"
            f"- {{id: n1, address: '{OWN}'}}\n"
            "- id: n2\n  address: 127.0.0.1:8310\n"
            "- 127.0.0.1:8320\n"
        )

        self.assertEqual(
            settings.peers,
            (
                Server("n1", OWN),
                Server("n2", "127.0.0.1:8310"),
                Server("127.0.0.1:8320", "127.0.0.1:8320"),
            ),
        )

    def test_ids_that_are_addresses(self) -> None:
        """Spelt out, an id that is the address is allowed at every version."""
        settings = self.load(f"peers: [{{id: '{OWN}', address: '{OWN}'}}]\n")

        self.assertEqual(settings.peers, voters(OWN))

    def test_alone(self) -> None:
        """A node that founds a cluster alone has its id, however it is listed."""
        for listed in (
            "",
            f"peers: [{OWN}]\n",
            f"peers: [{{id: n1, address: '{OWN}'}}]\n",
        ):
            settings = self.load(f"id: n1\n{VERSION_3}{listed}")
            self.assertEqual(settings.peers, (Server("n1", OWN),))

    def test_effective_round_trip(self) -> None:
        """What is shown reads back as the same members."""
        settings = self.load(
            f"id: n1\n{VERSION_3}peers: [{{id: n1, address: '{OWN}'}}, n2:8300]\n"
        )

        self.assertIn("- id: n1", effective(settings))
        self.assertIn("- n2:8300", effective(settings))
        self.assertEqual(self.load(effective(settings)), settings)


class Mistakes(SettingsTestCase):
    """Each fault names the line of the member, and what would be right."""

    def assertMemberFault(self, member: str, *words: str) -> None:
        """Assert one fault in *member*, the second one, in line 5."""
        self.assertFault(
            f"id: n1\n{VERSION_3}peers:\n- {{id: n1, address: '{OWN}'}}\n{member}",
            5,
            *words,
        )

    def test_missing_key(self) -> None:
        self.assertMemberFault("- {id: n2}", "peers.address is missing", "{id: n1")
        self.assertMemberFault("- {address: 'n2:1'}", "peers.id is missing")

    def test_unknown_key(self) -> None:
        self.assertMemberFault(
            "- {id: n2, address: 'n2:1', adress: 'n2:1'}",
            "peers.adress",
            "did you mean peers.address?",
        )

    def test_wrong_values(self) -> None:
        self.assertMemberFault("- {id: 2, address: 'n2:1'}", "peers.id is 2", "text")
        self.assertMemberFault(
            "- {id: n2, address: n2}", "peers.address is 'n2'", "host:port"
        )
        self.assertMemberFault(
            "- {id: n2, address: '0.0.0.0:1'}", "peers.address", "wildcard"
        )
        self.assertMemberFault("- [n2]", "peers is a list", "single value")

    def test_line_of_a_key(self) -> None:
        """A member that takes several lines has its fault at the right one."""
        self.assertFault(
            f"{VERSION_3}peers:\n- {OWN}\n- id: n2\n  address: n2\n", 5, "peers.address"
        )

    def test_repeats(self) -> None:
        self.assertMemberFault(
            f"- {{id: n2, address: '{OWN}'}}", f"names {OWN} twice, first at", ":4"
        )
        self.assertMemberFault(
            "- {id: n1, address: 'n2:1'}", "names id n1 twice, first at", ":4"
        )

    def test_ids_below_version_3(self) -> None:
        """There the address is the id, and nothing else."""
        self.assertFault(
            f"peers:\n- {OWN}\n- {{id: n2, address: 'n2:1'}}\n",
            3,
            "gives n2:1 the id n2",
            "raft.protocol_version: 3",
        )

    def test_own_id_that_differs(self) -> None:
        """All first members list the same ids, so a node finds its own there."""
        self.assertFault(
            f"id: n1\n{VERSION_3}peers:\n- {{id: n9, address: '{OWN}'}}\n- n2:1\n",
            4,
            "lists this node as n9, but its id is n1",
            f"write {{id: n1, address: {OWN}}}",
        )
        self.assertFault(
            f"id: n1\n{VERSION_3}peers:\n- {OWN}\n- n2:1\n",
            4,
            f"lists this node as {OWN}, but its id is n1",
        )
        self.assertFault(
            f"{VERSION_3}peers:\n- {{id: n9, address: '{OWN}'}}\n- n2:1\n",
            3,
            "lists this node as n9",
            "write id: n9 too",
        )

    def test_without_this_node(self) -> None:
        self.assertFault(
            f"id: n1\n{VERSION_3}peers: [{{id: n2, address: 'n2:1'}}]\n",
            3,
            f"does not include this node: add {{id: n1, address: {OWN}}}",
        )
