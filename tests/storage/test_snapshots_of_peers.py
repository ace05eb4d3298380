"""Snapshot directories of Go peers, and ours beside them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.test_segment import crc64
from tests.support.failing_disk import Disk
from tests.support.snapshots import BASE, SNAPSHOTS, file_store
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.testing.contracts.snapshots import write

DATA = Path(__file__).parent / "data" / "snapshots-on-disk.json"


class GoPeers(SynchronousTestCase):
    """Directories that Go peers wrote, and ours beside them."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.captures = json.loads(DATA.read_text())

    def put(self, capture: dict[str, str]) -> str:
        """Lay a captured directory out on the disk; return its id."""
        folder = BASE / capture["folder"]
        self.disk.make_directory(folder)
        state = bytes.fromhex(capture["state_bin_hex"])
        self.disk.create(folder / "meta.json").write_at(
            capture["meta_json"].encode(), 0
        )
        self.disk.create(folder / "state.bin").write_at(state, 0)
        return folder.name

    def test_open(self) -> None:
        """Snapshots of every version are read."""
        store = file_store(self.disk)
        self.assertEqual(len(self.captures), 4)
        for capture in self.captures:
            meta, source = store.open(self.put(capture))

            with source:
                self.assertEqual(source.read().hex(), capture["state_bin_hex"])
            self.assertEqual(list(meta.configuration.voters), capture["peers_decoded"])
            fields = json.loads(capture["meta_json"])
            self.assertEqual(meta.version, fields.get("Version", 0))
            self.assertEqual((meta.index, meta.term), (fields["Index"], fields["Term"]))

    def test_version_0(self) -> None:
        """The form of 0.1.0 names peers only: ids are addresses."""
        capture = next(c for c in self.captures if c["peer"] == "0.1.0")
        store = file_store(self.disk)

        meta, source = store.open(self.put(capture))

        source.close()
        self.assertEqual(meta.configuration_index, meta.index)
        servers = meta.configuration.servers
        self.assertEqual([s.id for s in servers], capture["peers_decoded"])

    def test_description_as_go_writes_it(self) -> None:
        """Ours is theirs, byte for byte, where the same is said."""
        for capture in self.captures:
            if capture["peer"] == "0.1.0":
                continue
            term, index, now = re.findall(r"\d+", capture["folder"])
            fields = json.loads(capture["meta_json"])
            configuration = Configuration(
                tuple(
                    Server(s["ID"], s["Address"], Suffrage(s["Suffrage"]))
                    for s in fields["Configuration"]["Servers"]
                )
            )
            store = file_store(self.disk, now=int(now))
            sink = store.create(
                int(index), int(term), configuration, fields["ConfigurationIndex"]
            )
            sink.write(bytes.fromhex(capture["state_bin_hex"]))
            sink.close()

            data = self.disk.content(SNAPSHOTS / sink.id / "meta.json").data
            described, check = bytes(data).decode().split(',"Check":')
            self.assertEqual(described + "}\n", capture["meta_json"])
            self.assertRegex(check, r'^"[A-Za-z0-9+/]{11}="}\n$')

    def test_checksum(self) -> None:
        """The checksum is CRC-64/XZ, high byte first."""
        store = file_store(self.disk)
        id = write(store, 1, b"first\nsecond\n")

        data = bytes(self.disk.content(SNAPSHOTS / id / "meta.json").data)

        self.assertIn(b'"CRC":"Fin9h3zOPWw=","Check":', data)
        crc = crc64(b"first\nsecond\n").to_bytes(8, "big")
        self.assertEqual(base64.b64encode(crc), b"Fin9h3zOPWw=")

    def test_escapes(self) -> None:
        """Text is escaped as Go does, and survives whatever it is."""
        store = file_store(self.disk)
        addresses = ["<a>&\u2028\u00e9:1", 'b"\\:1', "c\udcff:1"]
        configuration = Configuration.of_voters(addresses)
        sink = store.create(1, 1, configuration, 1)
        sink.close()

        data = bytes(self.disk.content(SNAPSHOTS / sink.id / "meta.json").data)

        self.assertIn(b'"\\u003ca\\u003e\\u0026\\u2028\xc3\xa9:1"', data)
        self.assertEqual(store.list()[0].configuration, configuration)

    def test_no_servers(self) -> None:
        """An empty membership is null, as Go writes it."""
        store = file_store(self.disk)
        sink = store.create(1, 1, Configuration(), 0)
        sink.close()

        data = bytes(self.disk.content(SNAPSHOTS / sink.id / "meta.json").data)

        self.assertIn(b'"Configuration":{"Servers":null}', data)
        self.assertEqual(store.list()[0].configuration, Configuration())
