"""Entries: their bytes, the fields they keep, and the types that are refused."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.entry import Entry, LogType
from txraft.errors import ProtocolError
from txraft.wire.entries import (
    CLUSTER_PREFIX,
    decode_entry,
    encode_entry,
    encode_new,
    entry_from_map,
)
from txraft.wire.membership import (
    address_from_bytes,
    address_to_bytes,
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)

CLUSTER = bytes(range(16))
THREE = Configuration(
    (
        Server("n1", "h:1"),
        Server("n2", "h:2", Suffrage.NONVOTER),
        Server("n3", "h:3", Suffrage.STAGING),
    )
)


def fields(**changed: object) -> dict[bytes, object]:
    """Make the map of a good entry, with some fields *changed*."""
    good: dict[str, object] = {
        "Data": b"x",
        "Extensions": None,
        "Index": 7,
        "Term": 3,
        "Type": 0,
    }
    return {key.encode(): value for key, value in {**good, **changed}.items()}


class EncodedEntries(SynchronousTestCase):
    @given(
        st.integers(1, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.sampled_from([LogType.COMMAND, LogType.NOOP, LogType.BARRIER]),
        st.none() | st.binary(max_size=70_000),
        st.none() | st.binary(max_size=100),
    )
    def test_entry_survives(
        self,
        index: int,
        term: int,
        kind: LogType,
        data: bytes | None,
        extensions: bytes | None,
    ) -> None:
        """An entry reads back as it was, nil apart from empty, same bytes."""
        entry = Entry(index, term, kind, data, extensions)
        encoded = encode_entry(entry)
        decoded = decode_entry(encoded)
        self.assertEqual(decoded, entry)
        self.assertEqual(decoded.encoded, encoded)

    def test_version_0_has_extensions_only_when_there_are_some(self) -> None:
        """The oldest peers skip the key; without content it is left out."""
        plain = Entry(1, 1, LogType.NOOP)
        self.assertNotIn(b"Extensions", encode_entry(plain, version=0))
        self.assertIn(b"Extensions\xc0", encode_entry(plain, version=1))
        named = Entry(1, 1, LogType.NOOP, cluster=CLUSTER)
        self.assertEqual(decode_entry(encode_entry(named, version=0)).cluster, CLUSTER)

    def test_sender_form_is_kept(self) -> None:
        """Each of the three forms that Go peers write is passed on unchanged."""
        time = b"\x01" + bytes(12) + b"\xff\xff"
        newest = {b"AppendedAt": time, **fields()}
        oldest = fields()
        del oldest[b"Extensions"]
        for form in (oldest, fields(), newest):
            raw = msgpack.packb(form, use_bin_type=False)
            self.assertEqual(decode_entry(raw).encoded, raw)

    def test_other_forms_become_canonical(self) -> None:
        """Other keys, another order and odd widths are not passed on."""
        canonical = encode_entry(Entry(7, 3, LogType.COMMAND, b"x"))
        backwards = dict(reversed(fields().items()))
        for form in (
            backwards,
            fields(Unknown=[1, {}]),
            {b"AppendedAt": b"short", **fields()},
            {b"AppendedAt": None, **fields()},
        ):
            raw = msgpack.packb(form, use_bin_type=False)
            self.assertEqual(decode_entry(raw).encoded, canonical)
        bin_data = msgpack.packb(fields(), use_bin_type=True)
        self.assertEqual(decode_entry(bin_data).encoded, canonical)

    def test_cluster_travels_in_the_extensions(self) -> None:
        """Sixteen bytes behind the prefix are the cluster; anything else is not."""
        entry = Entry(1, 1, LogType.NOOP, cluster=CLUSTER)
        encode_new(entry)
        self.assertEqual(entry.extensions, CLUSTER_PREFIX + CLUSTER)
        self.assertEqual(decode_entry(entry.encoded), entry)
        for other in (b"", CLUSTER_PREFIX, CLUSTER_PREFIX + CLUSTER + b"x", b"x" * 31):
            decoded = entry_from_map(fields(Extensions=other))
            self.assertIsNone(decoded.cluster)
            self.assertEqual(decoded.extensions, other)

    def test_application_extensions_stay(self) -> None:
        """An application's own extensions are not replaced by a cluster."""
        entry = Entry(1, 1, LogType.COMMAND, extensions=b"mine", cluster=CLUSTER)
        self.assertEqual(decode_entry(encode_entry(entry)).extensions, b"mine")


class MembershipEntries(SynchronousTestCase):
    def test_data_is_made_from_the_configuration(self) -> None:
        """Types 2 and 3 list voters, type 5 everything."""
        for kind, expected in (
            (LogType.ADD_PEER, Configuration.of_voters(["h:1"])),
            (LogType.REMOVE_PEER, Configuration.of_voters(["h:1"])),
            (LogType.CONFIGURATION, THREE),
        ):
            entry = Entry(1, 1, kind, configuration=THREE)
            encode_new(entry)
            self.assertIsNotNone(entry.data)
            self.assertEqual(decode_entry(entry.encoded).configuration, expected)
            self.assertEqual(
                encode_entry(Entry(1, 1, kind, configuration=THREE)), entry.encoded
            )

    def test_malformed_membership_is_refused(self) -> None:
        """Go peers die of these, at once and at each restart; or end up without a vote.

        An empty list is an old server's removal and an empty membership to others.
        """
        list_of_one, empty = encode_peers(["h:1"]), encode_peers([])
        nobody = encode_configuration(Configuration())
        listener = Server("n2", "h:2", Suffrage.NONVOTER)
        for kind, data in (
            (2, None),
            (2, b""),
            (2, b"\xc1"),
            (3, b"\x92\xa1x"),
            (2, b"\x01"),
            (2, b"\x91\x01"),
            (2, b"\x91\xc0"),
            (2, list_of_one + b"\x00"),
            (2, b"\x92\xa3h:1\xa3h:1"),
            (2, b"\x91\xa0"),
            (2, empty),
            (3, empty),
            (3, b"\xc0"),
            (5, nobody),
            (5, encode_configuration(Configuration((listener,)))),
            (5, None),
            (5, b""),
            (5, list_of_one),
            (5, empty),
            (5, b"\x81\xa7Servers\x01"),
            (5, b"\x81\xa7Servers\x91\xc0"),
            (5, b"\x81\xa7Servers\x91\x80"),
            (5, encode_configuration(THREE).replace(b"Suffrage\x02", b"Suffrage\x03")),
            (5, encode_configuration(THREE).replace(b"h:2", b"h:1")),
            (5, encode_configuration(THREE).replace(b"n2", b"n1")),
        ):
            form = fields(Type=kind, Data=data)
            error = self.assertRaises(ProtocolError, entry_from_map, form)
            self.assertIn("entry 7", str(error))

    def test_odd_fields_are_refused(self) -> None:
        """No field of an entry may be missing or of another type."""
        for changed in (
            {"Index": None},
            {"Index": -1},
            {"Index": 2**64},
            {"Index": True},
            {"Index": 7.0},
            {"Term": None},
            {"Term": b"3"},
            {"Type": None},
            {"Type": 6},
            {"Type": 255},
            {"Type": -1},
            {"Type": False},
            {"Data": [1, 2]},
            {"Data": "text"},
            {"Extensions": 1},
        ):
            self.assertRaises(ProtocolError, entry_from_map, fields(**changed))
        for absent in (b"Index", b"Term", b"Type"):
            form = fields()
            del form[absent]
            self.assertRaises(ProtocolError, entry_from_map, form)
        for odd in (None, [], 1, b""):
            self.assertRaises(ProtocolError, entry_from_map, odd)
        for raw in (b"", b"\x80\x80", b"\xc1", b"\x85"):
            self.assertRaises(ProtocolError, decode_entry, raw)


class Memberships(SynchronousTestCase):
    @given(st.binary(max_size=60))
    def test_any_bytes_are_an_address(self, raw: bytes) -> None:
        """Addresses keep their bytes, also those that are no UTF-8."""
        self.assertEqual(address_to_bytes(address_from_bytes(raw)), raw)

    @given(st.lists(st.text(min_size=1, max_size=40), max_size=20, unique=True))
    def test_peer_list_survives(self, peers: list[str]) -> None:
        """Order and names are kept."""
        peers = [p for p in peers if p.encode("utf-8", "replace").decode() == p]
        self.assertEqual(decode_peers(encode_peers(peers)), tuple(peers))

    def test_configuration_survives(self) -> None:
        """Ids, addresses and suffrage are kept, in order."""
        for configuration in (THREE, Configuration(), Configuration.of_voters("abc")):
            encoded = encode_configuration(configuration)
            self.assertEqual(decode_configuration(encoded), configuration)
