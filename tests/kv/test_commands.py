"""Commands: their bytes, and the refusal of all others."""

import contextlib

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import ApplicationError
from txraft.kv import commands
from txraft.kv.commands import (
    Advertise,
    CommandTooNew,
    Delete,
    Put,
    decode,
    encode_advertise,
    encode_delete,
    encode_put,
)

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=9)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


class Bytes(SynchronousTestCase):
    """Commands live in logs, so their bytes must not change by accident."""

    def test_encode_put_bytes(self) -> None:
        self.assertEqual(
            encode_put("a", b"\x00", 5), b"\x95\x01\x01\xa1a\xc4\x01\x00\x05"
        )

    def test_encode_after_what_cannot_be_encoded(self) -> None:
        """Nothing of it is left in the packer, which all commands share."""
        self.assertRaises(OverflowError, encode_put, "a", b"value", 2**64)

        self.assertEqual(encode_delete("é"), b"\x93\x01\x02\xa2\xc3\xa9")

    def test_encode_delete_bytes(self) -> None:
        self.assertEqual(encode_delete("é"), b"\x93\x01\x02\xa2\xc3\xa9")

    def test_encode_advertise_bytes(self) -> None:
        self.assertEqual(encode_advertise("a:1", "u"), b"\x94\x01\x03\xa3a:1\xa1u")

    @given(st.text(min_size=1), st.binary(), st.integers(0, commands.MAX_FLAGS))
    def test_decode_gives_back_a_put(self, key: str, value: bytes, flags: int) -> None:
        self.assertEqual(decode(encode_put(key, value, flags)), Put(key, value, flags))

    def test_decode_gives_back_the_others(self) -> None:
        self.assertEqual(decode(encode_delete("k/é")), Delete("k/é"))
        self.assertEqual(decode(encode_advertise("a:1", "u")), Advertise("a:1", "u"))


class Refusals(SynchronousTestCase):
    """Every replica refuses the same commands, with the same error."""

    def assert_refused(self, fields: object, sentence: str) -> None:
        error = self.assertRaises(ApplicationError, decode, msgpack.packb(fields))
        self.assertIn(sentence, str(error))

    def test_decode_without_data(self) -> None:
        """An entry can carry nil or nothing at all."""
        self.assertRaises(ApplicationError, decode, None)
        self.assertRaises(ApplicationError, decode, b"")

    def test_decode_what_is_no_command(self) -> None:
        self.assert_refused({"put": 1}, "not a list")
        self.assert_refused([], "version and verb")
        self.assert_refused([1], "version and verb")
        self.assert_refused([True, 1, "k", b"", 0], "version and verb")

    def test_decode_trailing_or_missing_bytes(self) -> None:
        command = encode_put("k", b"v")
        self.assertRaises(ApplicationError, decode, command + b"\x00")
        self.assertRaises(ApplicationError, decode, command[:-1])

    def test_decode_old_version_is_named(self) -> None:
        self.assert_refused([0, 1, "k", b"", 0], "version 0 is not understood")

    def test_decode_unknown_verb_is_named(self) -> None:
        """No later release gives this version another verb, so all agree."""
        self.assert_refused([1, 99, "k"], "no verb 99")

    def test_decode_newer_version_is_no_refusal(self) -> None:
        """A peer may understand it: skipping it would make replicas differ."""
        error = self.assertRaises(CommandTooNew, decode, msgpack.packb([4, 1, "k"]))

        self.assertNotIsInstance(error, ApplicationError)
        self.assertIn("upgrade", str(error))

    def test_decode_wrong_arguments(self) -> None:
        for fields in (
            [1, 1, "k", b"v"],
            [1, 1, "k", b"v", 0, 0],
            [1, 1, "k", "text", 0],
            [1, 1, b"k", b"v", 0],
            [1, 1, "", b"v", 0],
            [1, 1, "k", b"v", -1],
            [1, 1, "k", b"v", True],
            [1, 1, "k", b"v", 1.0],
            [1, 2],
            [1, 2, "k", 1],
            [1, 3, "a:1"],
            [1, 3, "", "u"],
            [1, 3, "a:1", ""],
            [1, 3, "a:1", b"u"],
            [1, 3, "a:1", "u" * (commands.MAX_URL_CHARACTERS + 1)],
            [1, 3, "a" * (commands.MAX_ADDRESS_CHARACTERS + 1), "u"],
        ):
            self.assertRaises(ApplicationError, decode, msgpack.packb(fields))

    @given(st.binary(max_size=60) | JUNK.map(msgpack.packb))
    def test_decode_garbage_never_fails_otherwise(self, data: bytes) -> None:
        """Any other exception would halt every replica."""
        with contextlib.suppress(ApplicationError, CommandTooNew):
            decode(data)
