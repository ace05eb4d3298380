"""The reader of strace's output, line by line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.calls import repeated

FAILS = "{} fdatasync(7<{}>) = -1 EIO (Input/output error) (INJECTED)\n"


class Repeated(SynchronousTestCase):
    """Syncs that were tried again though they had failed."""

    def test_one_failure_of_each(self) -> None:
        """Each file may fail once: whoever writes it learns that but then."""
        trace = FAILS.format(1, "/data/log/1") + FAILS.format(2, "/data/state.tmp")

        self.assertEqual(repeated(trace), [])

    def test_tried_again(self) -> None:
        """A second attempt with the same file is one too many."""
        trace = FAILS.format(1, "/data/log/1") * 2 + "1 fdatasync(7</data/log/2>) = 0\n"

        self.assertEqual(repeated(trace), ["/data/log/1"])
