"""`node.yaml`: the meaning of each key, and the answer to each mistake."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

from tests.support.settings import SettingsTestCase, voters
from txraft.config import Config
from txraft.http.limits import HTTPLimits
from txraft.settings import settings as settings_module
from txraft.settings.settings import (
    HTTPSettings,
    NodeLimits,
    Settings,
    effective,
    field_documentation,
    load_settings,
    raft_settings,
)


class Defaults(SettingsTestCase):
    """Every field has a default: no file makes a single node on loopback."""

    def test_load_settings_no_file(self) -> None:
        settings = load_settings(directory=str(self.directory))

        self.assertEqual(
            settings,
            Settings(
                data_dir=str(self.directory / "txraft-data"),
                id=None,
                node_name=None,
                store="file",
                log_level="info",
                listen="tcp:8300:interface=127.0.0.1",
                advertise="127.0.0.1:8300",
                peers=voters("127.0.0.1:8300"),
                join=False,
                http=HTTPSettings(
                    listen="tcp:8500:interface=127.0.0.1",
                    advertise="http://127.0.0.1:8500",
                    tls=None,
                    tokens=None,
                    open_probes=True,
                    insecure=False,
                    allowed_origins=(),
                ),
                raft=Config(max_append_entries=1024),
                limits=NodeLimits(),
                tls=None,
                insecure_peers=False,
            ),
        )

    def test_load_settings_empty_file(self) -> None:
        """A file of comments means the same, beside the file."""
        self.assertEqual(
            self.load("# nothing yet\n"), load_settings(directory=str(self.directory))
        )

    def test_load_settings_empty_sections(self) -> None:
        """A section whose content is commented out is an empty one."""
        self.assertEqual(self.load("http:\nraft:\n"), self.load(""))

    def test_load_settings_opens_nothing(self) -> None:
        self.load("data_dir: deep/down")

        self.assertEqual(os.listdir(self.directory), ["node.yaml"])


class Values(SettingsTestCase):
    """What is written is what a node gets."""

    def test_peers_and_addresses(self) -> None:
        settings = self.load(
            "listen: tcp:8310:interface=127.0.0.1\n"
            "peers: [127.0.0.1:8300, 127.0.0.1:8310, '[::1]:8320']\n"
        )

        self.assertEqual(settings.advertise, "127.0.0.1:8310")
        self.assertEqual(
            settings.peers, voters("127.0.0.1:8300", "127.0.0.1:8310", "[::1]:8320")
        )

    def test_listen_ipv6(self) -> None:
        """An IPv6 interface is advertised in brackets."""
        settings = self.load(r"listen: 'tcp6:8300:interface=\:\:1'")

        self.assertEqual(settings.advertise, "[::1]:8300")

    def test_join(self) -> None:
        settings = self.load("join: true")

        self.assertEqual((settings.join, settings.peers), (True, ()))

    def test_data_dir_relative_to_file(self) -> None:
        settings = self.load("data_dir: ./data/n1")

        self.assertEqual(settings.data_dir, str(self.directory / "data" / "n1"))

    def test_http_off(self) -> None:
        self.assertIs(self.load("http: {listen: null}").http, None)

    def test_http_advertise_loses_slash(self) -> None:
        http = self.load("http: {advertise: 'http://n1.example:8500/'}").http

        assert http is not None
        self.assertEqual(http.advertise, "http://n1.example:8500")

    def test_beyond_loopback_permitted(self) -> None:
        settings = self.load(
            "listen: tcp:8300\nadvertise: n1.example:8300\ninsecure_peers: true\n"
            "http: {listen: tcp:8500, advertise: 'http://n1.example:8500',"
            " insecure: true}\n"
        )

        self.assertEqual(settings.peers, voters("n1.example:8300"))

    def test_durations(self) -> None:
        """A duration is 1s, 500ms or plain seconds."""
        for written, seconds in [
            ("1s", 1.0),
            ("1500ms", 1.5),
            ("2", 2.0),
            ("1.25", 1.25),
            ("1.5 s", 1.5),
            ("1m", 60.0),
            ("1h", 3600.0),
        ]:
            raft = self.load(f"raft: {{election_timeout: {written}}}").raft
            self.assertEqual(raft.election_timeout, seconds, written)

    def test_raft_every_field(self) -> None:
        """Any field of Config can be set, but for the one that is a function."""
        self.assertEqual(set(raft_settings()), set(Config.__slots__) - {"notify"})
        raft = self.load("raft:\n  max_append_entries: 100\n  pre_vote: false\n").raft
        self.assertEqual(raft, Config(max_append_entries=100, pre_vote=False))

    def test_limits(self) -> None:
        """Any named limit can be set, whatever it bounds."""
        limits = self.load(
            "limits: {max_requests_in_flight: 9, request_timeout: 6s,"
            " max_inbound_connections: 7, max_entries: 2048}"
        ).limits

        self.assertEqual(
            limits.http, HTTPLimits(max_requests_in_flight=9, request_timeout=6.0)
        )
        self.assertEqual(limits.connections.max_inbound_connections, 7)
        self.assertEqual(limits.messages.max_entries, 2048)

    def test_limits_have_names_of_their_own(self) -> None:
        """No name stands for two limits."""
        parts = (NodeLimits().http, NodeLimits().connections, NodeLimits().messages)

        self.assertEqual(
            len(NodeLimits().named()), sum(len(fields(part)) for part in parts)
        )

    def test_id_at_protocol_3(self) -> None:
        settings = self.load("id: n1\nraft: {protocol_version: 3}")

        self.assertEqual(settings.id, "n1")


class Mistakes(SettingsTestCase):
    """Each mistake is one message with file, line, and what would be right."""

    def test_unknown_key(self) -> None:
        self.assertFault("store: file\nperrs: []\n", 2, "perrs", "did you mean peers?")

    def test_unknown_key_in_section(self) -> None:
        self.assertFault(
            "http:\n  lisen: x\n", 2, "http.lisen", "did you mean http.listen?"
        )

    def test_unknown_key_of_other_section(self) -> None:
        self.assertFault(
            "heartbeat_timeout: 1s\n", 1, "did you mean raft.heartbeat_timeout?"
        )

    def test_unknown_key_unlike_any(self) -> None:
        """Without a likeness the known keys are listed."""
        self.assertFault("zzz: 1\n", 1, "known: data_dir, id, node_name, store")

    def test_wrong_type(self) -> None:
        for line, words in [
            ("advertise: 8300", ("advertise is 8300", "host:port")),
            ("data_dir: [a]", ("data_dir is a list", "single value")),
            ("data_dir:", ("data_dir is empty", "text")),
            ("join: 1", ("join is 1", "true or false")),
            ("join:", ("join is empty", "true or false")),
            ("raft: 5", ("raft is 5", "mapping")),
            ("raft: {pre_vote: 'yes'}", ("raft.pre_vote is 'yes'", "true or false")),
            ("raft: {trailing_logs: 1.5}", ("raft.trailing_logs is 1.5", "whole")),
            ("raft: {trailing_logs: 0x10}", ("raft.trailing_logs is 0x10", "decimal")),
            ("peers: 127.0.0.1:8300", ("peers is '127.0.0.1:8300'", "a list")),
            ("peers:", ("peers is empty", "a list")),
            ("peers: [[n1:8300]]", ("peers is a list", "single value")),
            ("store: mdb", ("store is 'mdb'", "must be one of file, lmdb")),
            ("node_name: a b", ("node_name is 'a b'", "128 letters, digits")),
            ("node_name:", ("node_name is empty", "text")),
            ("log_level: loud", ("log_level is 'loud'", "debug, info, warn")),
            ("data_dir: !!python/name:os.system x", ("data_dir", "text")),
        ]:
            self.assertFault(f"# first\n{line}\n", 2, *words)

    def test_bad_duration(self) -> None:
        for written in ("fast", "5 parsecs", "-1s", ".nan", ".inf", "1:30", "", "1e99"):
            self.assertFault(
                f"raft:\n  election_timeout: {written}\n", 2, "raft.election_timeout"
            )

    def test_out_of_range(self) -> None:
        """What `validate_config` refuses is reported at the line of the field."""
        self.assertFault(
            "raft:\n  pre_vote: true\n  max_append_entries: 5000\n",
            3,
            "raft.max_append_entries is 5000",
            "1 to 1024",
        )

    def test_inconsistent(self) -> None:
        """Two fields that disagree are reported at the one that was written."""
        self.assertFault(
            "raft:\n  heartbeat_timeout: 200ms\n",
            2,
            "raft.heartbeat_timeout (0.2 s) is less than leader_lease_timeout (0.5 s)",
        )

    def test_limits(self) -> None:
        """A limit is above 0, and limits fit together."""
        for written, words in [
            ("max_connections: 0", ("limits.max_connections is 0", "above 0")),
            ("max_entries: -1", ("limits.max_entries is -1", "above 0")),
            ("max_entries: many", ("limits.max_entries is 'many'", "whole")),
            ("request_timeout: 2s", ("limits.request_timeout (2 s)", "leader_wait (5")),
            ("drain_timeout: -1", ("limits.drain_timeout is -1", "a duration")),
            (
                "drain_wait: 11s",
                ("drain_wait (11 s)", "drain_timeout to at least 11 s"),
            ),
            ("max_keys: 5", ("limits.max_keys is 5", "at least 16")),
            ("max_buffered_bytes: 9", ("limits.max_buffered_bytes (9)", "max_mess")),
            ("max_conections: 1", ("did you mean limits.max_connections?",)),
        ]:
            self.assertFault(f"limits:\n  {written}\n", 2, *words)

    def test_limits_that_may_be_zero(self) -> None:
        """A node need not wait for clients."""
        settings = self.load("limits: {drain_timeout: 0, drain_wait: 0s}\n")

        self.assertEqual(settings.limits.http.drain_timeout, 0.0)

    def test_limits_of_different_sections(self) -> None:
        """What contradicts another section is told at what was written."""
        self.assertFault(
            "raft:\n  max_entry_bytes: 400000\n",
            2,
            "raft.max_entry_bytes (400000) is less than max_value_bytes (524288)",
            "set max_entry_bytes to at least 526336",
        )
        self.assertFault(
            "limits:\n  max_entries: 8\n",
            2,
            "limits.max_entries (8) is less than max_append_entries (1024)",
        )
        self.assertFault(
            "raft: {heartbeat_timeout: 2s, election_timeout: 2s}\n"
            "limits:\n  max_value_bytes: 2000000\n  max_body_bytes: 2000000\n",
            3,
            "raft.max_entry_bytes (1048576)",
            "max_value_bytes (2000000)",
        )

    def test_bad_endpoint(self) -> None:
        for written in (
            "8300",
            "tpc:8300",
            "tcp",
            "tcp:http",
            "tcp:0:interface=127.0.0.1",
            "tcp:70000:interface=127.0.0.1",
            "tcp:8300:face=127.0.0.1",
            "ssl:8300:interface=127.0.0.1",
            "unix:/tmp/socket",
        ):
            self.assertFault(
                f"\nlisten: '{written}'\n",
                2,
                f"listen is '{written}'",
                "such as tcp:8300:interface=127.0.0.1",
            )

    def test_bad_address(self) -> None:
        for written in (
            "127.0.0.1",
            ":8300",
            "a b:8300",
            "n1:0",
            "n1:65536",
            "n1:http",
            "::1:8300",
            "[x]:8300",
            "0.0.0.0:8300",
            "[::]:8300",
        ):
            self.assertFault(
                f"advertise: '{written}'\n", 1, f"advertise is '{written}'", "host:port"
            )

    def test_bad_url(self) -> None:
        for written in (
            "127.0.0.1:8500",
            "https://127.0.0.1:8500",
            "http://127.0.0.1:8500/v1",
            "http://user@127.0.0.1:8500",
            "http://127.0.0.1:0x",
            "http://0.0.0.0:8500",
            "http://[",
            "http://",
        ):
            self.assertFault(
                f"http:\n  advertise: '{written}'\n",
                2,
                f"http.advertise is '{written}'",
                "http://127.0.0.1:8500",
            )

    def test_data_dir_is_file(self) -> None:
        (self.directory / "taken").write_text("")

        self.assertFault("data_dir: taken", 1, "taken is none", "a directory")
        self.assertFault("data_dir: taken/below", 1, "taken is none", "a directory")

    def test_data_dir_not_writable(self) -> None:
        (self.directory / "closed").mkdir()
        self.patch(os, "access", lambda path, mode: False)

        self.assertFault("data_dir: closed", 1, "closed cannot be written")

    def test_duplicate_peer(self) -> None:
        self.assertFault(
            "peers:\n- 127.0.0.1:8300\n- n2:8300\n- N2:8300\n", 4, "N2:8300 twice", ":3"
        )

    def test_peers_without_this_node(self) -> None:
        self.assertFault(
            "peers: [n2:8300]\n", 1, "does not include this node", "127.0.0.1:8300"
        )

    def test_peers_empty(self) -> None:
        self.assertFault("peers: []\n", 1, "does not include this node", "join: true")

    def test_peers_with_join(self) -> None:
        self.assertFault("join: true\npeers: [n1:8300]\n", 2, "together with join")

    def test_peers_with_bad_item(self) -> None:
        """A bad item has its own line, and nothing is concluded from the rest."""
        self.assertFault("peers:\n- n2:8300\n- n3\n", 3, "peers is 'n3'", "host:port")

    def test_listen_beyond_loopback(self) -> None:
        """Nothing authenticates peers, so other machines need permission."""
        self.assertFault(
            "advertise: n1:8300\nlisten: tcp:8300\n", 2, "insecure_peers: true"
        )
        self.assertFault(
            "listen: tcp:8300:interface=192.0.2.1\n", 1, "insecure_peers: true"
        )

    def test_listen_wildcard_without_advertise(self) -> None:
        self.assertFault(
            "insecure_peers: true\nlisten: tcp:8300\n", 2, "advertise is missing"
        )

    def test_http_beyond_loopback(self) -> None:
        self.assertFault(
            "http:\n  advertise: http://n1:8500\n  listen: tcp:8500\n",
            3,
            "http.listen",
            "insecure: true",
        )

    def test_http_wildcard_without_advertise(self) -> None:
        self.assertFault(
            "http:\n  insecure: true\n  listen: tcp:8500\n",
            3,
            "http.advertise is missing",
        )

    def test_http_off_with_advertise(self) -> None:
        self.assertFault(
            "http:\n  listen: null\n  advertise: http://n1:8500\n",
            3,
            "http.advertise",
            "turns HTTP off",
        )

    def test_tls_needs_its_files(self) -> None:
        """Half of a TLS section is refused, never ignored."""
        faults = self.faults("tls: {ca: ca.pem}\n")
        self.assertEqual(
            [fault.split(" is ")[0] for fault in faults],
            ["node.yaml:1: tls.certificate", "node.yaml:1: tls.private_key"],
        )

    def test_tls_names_must_differ(self) -> None:
        """Two members of one name could each speak as the other."""
        self.assertFault(
            "peers: [127.0.0.1:8300, 127.0.0.1:8310]\n"
            "tls: {certificate: a, private_key: b, ca: c}\n",
            2,
            "127.0.0.1:8300 and 127.0.0.1:8310 share the name 127.0.0.1",
        )

    def test_tls_names_of_no_host(self) -> None:
        """A name that no certificate can prove is told, and only that."""
        for name in ("node one", "x@y", "*.test", "raft://n1"):
            self.assertFault(
                "peers: [127.0.0.1:8300, 127.0.0.1:8310]\n"
                "tls:\n  certificate: a\n  private_key: b\n  ca: c\n"
                f"  server_names:\n    127.0.0.1:8300: '{name}'\n",
                7,
                f"tls.server_names.127.0.0.1:8300 is '{name}'",
                "must be a host name or IP address",
                "certificate is for",
            )

    def test_lmdb_without_its_package(self) -> None:
        """The store that needs an extra says how to get it."""
        self.assertEqual(self.load("store: lmdb\n").store, "lmdb")

        self.patch(settings_module, "find_spec", lambda name: None)

        self.assertFault("store: lmdb\n", 1, "store is 'lmdb'", "txraft[lmdb]")

    def test_id_below_protocol_3(self) -> None:
        self.assertFault("id: n1\n", 1, "raft.protocol_version: 3")

    def test_all_at_once(self) -> None:
        """Every fault is told, in the order of the lines."""
        faults = self.faults(
            "store: bolt\nlisten: x\nraft:\n  apply_slice: x\n  y: 1\nlog_level: z\n"
        )

        lines = [re.match(r"node.yaml:(\d+)", fault) for fault in faults]
        self.assertEqual([int(m[1]) for m in lines if m], [1, 2, 4, 5, 6])


class Flags(SettingsTestCase):
    """Flags override the file."""

    def test_flags_override(self) -> None:
        settings = self.load(
            "listen: tcp:1:interface=127.0.0.1\nhttp: {listen: null}\njoin: true\n",
            listen="tcp:2:interface=127.0.0.1",
            peers="127.0.0.1:2, n2:3",
            http_listen="tcp:4:interface=127.0.0.1",
            http_advertise="http://n1:4",
            log_level="debug",
        )

        http = settings.http
        assert http is not None
        self.assertEqual(settings.listen, "tcp:2:interface=127.0.0.1")
        self.assertEqual(settings.peers, voters("127.0.0.1:2", "n2:3"))
        self.assertEqual(settings.log_level, "debug")
        self.assertEqual(http.listen, "tcp:4:interface=127.0.0.1")
        self.assertEqual(http.advertise, "http://n1:4")

    def test_join_replaces_peers(self) -> None:
        settings = self.load("peers: [127.0.0.1:8300]", join="true")

        self.assertEqual((settings.join, settings.peers), (True, ()))

    def test_http_listen_null(self) -> None:
        self.assertIs(self.load("", http_listen="null").http, None)

    def test_data_dir_relative_to_directory(self) -> None:
        """A path in a flag starts where the process does, not at the file."""
        self.path.write_text("")

        settings = load_settings(
            str(self.path), {"data-dir": "here"}, str(self.directory / "run")
        )

        self.assertEqual(settings.data_dir, str(self.directory / "run" / "here"))

    def test_fault_names_flag(self) -> None:
        self.assertEqual(
            self.faults("", log_level="loud"),
            [
                "--log-level: log_level is 'loud', "
                "it must be one of debug, info, warn, error, critical"
            ],
        )

    def test_join_with_peers(self) -> None:
        problem = self.faults("", join="true", peers="127.0.0.1:8300")[0]

        self.assertIn("--peers: peers is given together with join", problem)


class Effective(SettingsTestCase):
    """The effective configuration reads back as the same settings."""

    def test_effective_round_trip(self) -> None:
        for written in (
            "",
            "join: true",
            "http: {listen: null}",
            "limits: {linger_timeout: 1.5, max_keys: 50}",
            "id: 'é: 1'\nraft: {protocol_version: 3, apply_slice: 0.1ms}",
            "data_dir: 'a #b'\npeers: ['[::1]:8300', 127.0.0.1:8300]",
            "listen: tcp:8300\nadvertise: n1:8300\ninsecure_peers: true\n"
            "http: {listen: tcp:8500, advertise: 'http://n1:8500', insecure: true}",
        ):
            settings = self.load(written)

            self.assertEqual(self.load(effective(settings)), settings)

    def test_effective_is_complete(self) -> None:
        """It shows every setting that the file may hold."""
        shown = effective(
            self.load("id: n1\nnode_name: db1\nraft: {protocol_version: 3}")
        )

        keys = {line.strip().partition(":")[0] for line in shown.splitlines()}
        for name, _, _ in field_documentation(Settings):
            if name != "join":
                self.assertIn(name, keys)
        for name in raft_settings():
            self.assertIn(name, keys)


class Examples(SettingsTestCase):
    """The settings files that the README starts a cluster with."""

    def test_cluster_of_three(self) -> None:
        """They agree on the members, and share nothing else."""
        directory = Path(__file__).parents[2] / "examples" / "cluster"

        nodes = [load_settings(str(directory / f"n{i}.yaml")) for i in (1, 2, 3)]

        members = {peer.address for peer in nodes[0].peers}
        self.assertEqual({node.peers for node in nodes}, {nodes[0].peers})
        self.assertEqual({node.advertise for node in nodes}, members)
        self.assertEqual(len({node.data_dir for node in nodes}), 3)
        self.assertEqual(len({node.http.advertise for node in nodes if node.http}), 3)
