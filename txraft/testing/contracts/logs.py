"""The contract of a log store: bounds, appending, replacing, deleting."""

from __future__ import annotations

from txraft.core.entry import Entry
from txraft.errors import LogNotFound
from txraft.interfaces import LogStore, RangeLogStore
from txraft.testing.contracts.case import Contract
from txraft.testing.contracts.samples import command, commands


class LogStoreContract(Contract):
    """Tests of a `LogStore`: a subclass makes an empty one.

    .. code-block:: python

        class MyLogs(LogStoreContract, SynchronousTestCase):
            def make_log(self) -> LogStore:
                return MyLogStore(self.mktemp())
    """

    def make_log(self) -> LogStore:
        """Make an empty log."""
        raise NotImplementedError

    def contents(self, log: LogStore) -> list[Entry]:
        """Read the whole log, entry by entry."""
        if not log.last_index():
            return []
        return [log.get_log(i) for i in range(log.first_index(), log.last_index() + 1)]

    def test_bounds_of_an_empty_log(self) -> None:
        """An empty log has the bounds 0, which is no index, and no entry."""
        log = self.make_log()

        self.assertEqual((log.first_index(), log.last_index()), (0, 0))
        self.assertRaises(LogNotFound, log.get_log, 0)
        self.assertRaises(LogNotFound, log.get_log, 1)

    def test_store_logs_appends(self) -> None:
        """Stored entries are read back equal, down to their encoding."""
        log = self.make_log()

        log.store_logs(commands(1, 3))
        log.store_log(command(4, 2))

        self.assertEqual((log.first_index(), log.last_index()), (1, 4))
        self.assertEqual(self.contents(log), [*commands(1, 3), command(4, 2)])
        self.assertEqual(log.get_log(4).encoded, command(4, 2).encoded)
        self.assertRaises(LogNotFound, log.get_log, 5)

    def test_store_logs_of_nothing(self) -> None:
        """Storing no entries changes nothing."""
        log = self.make_log()

        log.store_logs([])

        self.assertEqual(log.last_index(), 0)

    def test_store_logs_begins_anywhere(self) -> None:
        """An empty log may begin behind a snapshot."""
        log = self.make_log()

        log.store_logs(commands(70, 72))

        self.assertEqual((log.first_index(), log.last_index()), (70, 72))
        self.assertRaises(LogNotFound, log.get_log, 69)

    def test_store_logs_replaces_the_tail(self) -> None:
        """An entry at an index that is in the log replaces it and all after it."""
        log = self.make_log()
        log.store_logs(commands(1, 9))

        log.store_logs(commands(4, 5, term=2))

        self.assertEqual(self.contents(log), [*commands(1, 3), *commands(4, 5, term=2)])
        self.assertRaises(LogNotFound, log.get_log, 6)

    def test_store_logs_replaces_everything(self) -> None:
        """An entry at the first index replaces the whole log."""
        log = self.make_log()
        log.store_logs(commands(5, 9))

        log.store_logs(commands(5, 5, term=3))

        self.assertEqual(self.contents(log), commands(5, 5, term=3))

    def test_store_logs_refuses_a_gap(self) -> None:
        """Entries that would leave a gap raise and change nothing."""
        log = self.make_log()
        log.store_logs(commands(5, 6))

        for entries in (
            commands(8, 9),
            commands(4, 5),
            [command(7), command(9)],
            [command(7), command(7)],
        ):
            self.assertRaises(ValueError, log.store_logs, entries)
        self.assertRaises(ValueError, self.make_log().store_log, command(0))

        self.assertEqual(self.contents(log), commands(5, 6))

    def test_delete_range_of_a_prefix(self) -> None:
        """The log begins behind what was deleted."""
        log = self.make_log()
        log.store_logs([*commands(1, 4), *commands(5, 9, term=2)])

        log.delete_range(1, 6)

        self.assertEqual(self.contents(log), commands(7, 9, term=2))
        self.assertRaises(LogNotFound, log.get_log, 6)

    def test_delete_range_of_a_suffix(self) -> None:
        """The log ends before what was deleted, and goes on from there."""
        log = self.make_log()
        log.store_logs([*commands(1, 4), *commands(5, 9, term=2)])

        log.delete_range(4, 9)
        log.store_log(command(4, 3))

        self.assertEqual(self.contents(log), [*commands(1, 3), command(4, 3)])

    def test_delete_range_of_everything(self) -> None:
        """An emptied log is empty, and may begin anywhere."""
        log = self.make_log()
        log.store_logs(commands(1, 9))

        log.delete_range(1, 9)

        self.assertEqual((log.first_index(), log.last_index()), (0, 0))
        self.assertRaises(LogNotFound, log.get_log, 9)
        log.store_logs(commands(100, 101, term=2))
        self.assertEqual(self.contents(log), commands(100, 101, term=2))

    def test_delete_range_beyond_the_log(self) -> None:
        """Only what is there is deleted, and nothing is no error."""
        log = self.make_log()
        log.delete_range(1, 5)
        log.store_logs(commands(3, 9))

        log.delete_range(0, 2)
        log.delete_range(10, 12)
        log.delete_range(5, 4)
        self.assertEqual(self.contents(log), commands(3, 9))

        log.delete_range(0, 4)
        log.delete_range(8, 99)
        self.assertEqual(self.contents(log), commands(5, 7))

    def test_delete_range_refuses_the_middle(self) -> None:
        """A range with entries on both sides raises and changes nothing."""
        log = self.make_log()
        log.store_logs(commands(1, 9))

        self.assertRaises(ValueError, log.delete_range, 2, 8)

        self.assertEqual(self.contents(log), commands(1, 9))


class RangeLogStoreContract(LogStoreContract):
    """Tests of a `RangeLogStore`: a subclass makes an empty one."""

    def test_get_logs_within_bytes(self) -> None:
        """`get_logs` returns entries up to a limit of bytes, but at least one."""
        log = self.make_log()
        assert isinstance(log, RangeLogStore)
        log.store_logs(commands(1, 9))
        size = len(command(1).encoded)

        self.assertEqual(log.get_logs(2, 9, size * 3), commands(2, 4))
        self.assertEqual(log.get_logs(2, 9, size * 3 - 1), commands(2, 3))
        self.assertEqual(log.get_logs(2, 9, 0), commands(2, 2))
        self.assertEqual(log.get_logs(8, 99, 1 << 20), commands(8, 9))
        self.assertRaises(LogNotFound, log.get_logs, 10, 12, 1 << 20)
