"""What the node relies on in every stable store."""

from __future__ import annotations

from txraft.errors import StorageError
from txraft.interfaces import StableStore
from txraft.testing.contracts.case import Contract


class StableStoreContract(Contract):
    """The tests of a `StableStore`; a subclass makes an empty one."""

    def make_store(self) -> StableStore:
        """Make an empty store."""
        raise NotImplementedError

    def test_get_of_nothing(self) -> None:
        """A key that was never set is empty, or 0."""
        store = self.make_store()

        self.assertEqual(store.get(b"k"), b"")
        self.assertEqual(store.get_uint64(b"k"), 0)

    def test_set(self) -> None:
        """What was set last counts."""
        store = self.make_store()

        store.set(b"k", b"one")
        store.set(b"k", b"two")
        store.set(b"", b"")

        self.assertEqual(store.get(b"k"), b"two")

    def test_set_uint64(self) -> None:
        """All unsigned integers of 64 bits fit, and no other."""
        store = self.make_store()

        for value in (0, 1, 2**64 - 1):
            store.set_uint64(b"k", value)
            self.assertEqual(store.get_uint64(b"k"), value)
        for value in (-1, 2**64):
            self.assertRaises(ValueError, store.set_uint64, b"k", value)
        self.assertEqual(store.get(b"k"), b"\xff" * 8)

    def test_get_uint64_of_something_else(self) -> None:
        """A value that is no integer is refused."""
        store = self.make_store()
        store.set(b"k", b"four")

        self.assertRaises(StorageError, store.get_uint64, b"k")

    def test_set_many(self) -> None:
        """Several keys change, the others stay."""
        store = self.make_store()
        store.set_many({b"a": b"1", b"b": b"2"})

        store.set_many({b"b": b"3", b"c": b"4"})

        values = [store.get(key) for key in (b"a", b"b", b"c")]
        self.assertEqual(values, [b"1", b"3", b"4"])
