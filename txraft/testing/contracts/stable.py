"""The contracts of a stable store, with and without hints: values by key."""

from __future__ import annotations

from typing import Protocol

from txraft.errors import StorageError
from txraft.interfaces import HintingStableStore, StableStore
from txraft.testing.contracts.case import Contract


class StableStoreContract(Contract):
    """Tests of a `StableStore`: a subclass makes an empty one."""

    def make_store(self) -> StableStore:
        """Make an empty store."""
        raise NotImplementedError

    def test_get_of_nothing(self) -> None:
        """A key that was never set is b"", or 0 as an integer."""
        store = self.make_store()

        self.assertEqual(store.get(b"k"), b"")
        self.assertEqual(store.get_uint64(b"k"), 0)

    def test_set(self) -> None:
        """`get` returns the value that was set last."""
        store = self.make_store()

        store.set(b"k", b"one")
        store.set(b"k", b"two")
        store.set(b"", b"")

        self.assertEqual(store.get(b"k"), b"two")

    def test_set_uint64(self) -> None:
        """Integers from 0 to 2**64 - 1 are stored, and others raise ValueError."""
        store = self.make_store()

        for value in (0, 1, 2**64 - 1):
            store.set_uint64(b"k", value)
            self.assertEqual(store.get_uint64(b"k"), value)
        for value in (-1, 2**64):
            self.assertRaises(ValueError, store.set_uint64, b"k", value)
        self.assertEqual(store.get(b"k"), b"\xff" * 8)

    def test_get_uint64_of_something_else(self) -> None:
        """`get_uint64` of a value that is no integer raises StorageError."""
        store = self.make_store()
        store.set(b"k", b"four")

        self.assertRaises(StorageError, store.get_uint64, b"k")

    def test_set_many(self) -> None:
        """`set_many` changes its keys and leaves all others."""
        store = self.make_store()
        store.set_many({b"a": b"1", b"b": b"2"})

        store.set_many({b"b": b"3", b"c": b"4"})

        values = [store.get(key) for key in (b"a", b"b", b"c")]
        self.assertEqual(values, [b"1", b"3", b"4"])


class HintingStore(StableStore, HintingStableStore, Protocol):
    """A `StableStore` that also is a `HintingStableStore`."""


class HintingStableStoreContract(Contract):
    """Tests of the hints of a stable store: a subclass makes an empty one.

    A hint has 64 bytes at most. `StableStoreContract` tests the rest of the store.
    """

    def make_store(self) -> HintingStore:
        """Make an empty store."""
        raise NotImplementedError

    def reopen(self, store: HintingStore) -> HintingStore:
        """Open the data of *store* again without closing it, as after a kill."""
        raise NotImplementedError

    def test_the_node_sees_that_it_takes_hints(self) -> None:
        """It has the methods by which the node recognises such a store."""
        self.assertIsInstance(self.make_store(), HintingStableStore)

    def test_hinted_of_nothing(self) -> None:
        """A new store has the hint b""."""
        self.assertEqual(self.make_store().hinted(), b"")

    def test_the_latest_hint_counts(self) -> None:
        """`hinted` returns the last hint, also if earlier ones were longer."""
        store = self.make_store()

        for value in (b"first", b"x" * 64, b"a", b"\x00" * 24):
            store.hint(value)
            self.assertEqual(store.hinted(), value)

    def test_a_hint_is_there_after_a_kill(self) -> None:
        """A hint survives a kill of the process; only a power failure may lose it."""
        store = self.make_store()
        store.set(b"k", b"v")
        for value in (b"first", b"x" * 64, b"a"):
            store.hint(value)

            store = self.reopen(store)

            self.assertEqual((store.hinted(), store.get(b"k")), (value, b"v"))

    def test_hints_and_keys_do_not_meet(self) -> None:
        """A hint and a key never replace each other."""
        store = self.make_store()
        store.set_many({b"": b"0", b"k": b"1"})
        store.hint(b"hint")

        store.set_many({b"": b"2", b"hint": b"3"})

        self.assertEqual(store.hinted(), b"hint")
        values = [store.get(key) for key in (b"", b"k", b"hint")]
        self.assertEqual(values, [b"2", b"1", b"3"])
        self.assertEqual(self.reopen(store).hinted(), b"hint")
