"""The rules of every log store: in memory, in files, behind a cache, in LMDB."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.failing_disk import Disk
from tests.support.logs import AnyLog, open_log
from txraft.interfaces import LogStore
from txraft.storage.cache import LogCache
from txraft.storage.filelog import FileLog
from txraft.storage.lmdbstore import LMDBStore
from txraft.storage.memory import InmemStore
from txraft.testing.contracts import RangeLogStoreContract
from txraft.testing.contracts.samples import command, commands, identity, membership


class IndexedLogContract(RangeLogStoreContract):
    """The contract, and what the logs of this package know without reading."""

    def make_log(self) -> AnyLog:
        raise NotImplementedError

    def test_term_runs(self) -> None:
        """Runs of terms follow what is appended, replaced and deleted."""
        log = self.make_log()
        self.assertEqual(log.term_runs(), [])

        log.store_logs(commands(1, 9))
        log.store_logs(commands(4, 9, term=2))
        self.assertEqual(log.term_runs(), [(1, 1), (4, 2)])
        log.delete_range(1, 2)
        self.assertEqual(log.term_runs(), [(3, 1), (4, 2)])
        log.delete_range(6, 9)
        log.store_log(command(6, 3))
        self.assertEqual(log.term_runs(), [(3, 1), (4, 2), (6, 3)])
        log.store_logs(commands(3, 3, term=4))
        self.assertEqual(log.term_runs(), [(3, 4)])
        log.delete_range(3, 3)
        self.assertEqual(log.term_runs(), [])

    def test_delete_range_ends_with_a_term(self) -> None:
        """A prefix that ends with its term takes the term with it."""
        log = self.make_log()
        log.store_logs([*commands(1, 4), *commands(5, 9, term=2)])

        log.delete_range(1, 4)

        self.assertEqual(log.term_runs(), [(5, 2)])

    def test_special_entries(self) -> None:
        """Memberships and identities are known, also after entries have gone."""
        log = self.make_log()
        log.store_logs([membership(1), identity(2), command(3), membership(4)])

        specials = [membership(1), identity(2), membership(4)]
        self.assertEqual(log.special_entries(), specials)

        log.delete_range(1, 1)
        self.assertEqual(log.special_entries(), specials[1:])
        log.store_log(command(4, 2))
        self.assertEqual(log.special_entries(), [identity(2)])


class InmemLogs(IndexedLogContract, SynchronousTestCase):
    """The contract, in memory."""

    def make_log(self) -> AnyLog:
        return InmemStore()


class FileLogs(IndexedLogContract, SynchronousTestCase):
    """The contract, in one file."""

    def make_log(self) -> AnyLog:
        return open_log(Disk())


class FileLogsInManySegments(IndexedLogContract, SynchronousTestCase):
    """The contract, with a file for each write."""

    def make_log(self) -> AnyLog:
        return open_log(Disk(), segment_bytes=1)


class FileLogsOnTheOperatingSystem(IndexedLogContract, SynchronousTestCase):
    """The contract, in real files."""

    def make_log(self) -> AnyLog:
        log = FileLog(self.mktemp(), "n1", segment_bytes=200)
        self.addCleanup(log.close)
        return log


class CachedLogs(RangeLogStoreContract, SynchronousTestCase):
    """The contract, behind a cache smaller than the log."""

    def make_log(self) -> LogStore:
        return LogCache(3, InmemStore())


class LMDBLogs(RangeLogStoreContract, SynchronousTestCase):
    """The contract, in LMDB."""

    def make_log(self) -> LogStore:
        store = LMDBStore(self.mktemp(), "n1")
        self.addCleanup(store.close)
        return store
