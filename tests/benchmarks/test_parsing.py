"""The benchmarks' readers: options, answers of HTTP servers, frames."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import COMMANDS
from benchmarks.members.bare import Framed
from benchmarks.members.http_load import answer_end
from benchmarks.options import names, numbers
from benchmarks.systems import choose_from
from benchmarks.systems.http import KINDS, OPERATIONS, TxraftSite
from tests.benchmarks.__main__ import MOMENTS


class Options(SynchronousTestCase):
    """Lists on the command line."""

    def test_numbers(self) -> None:
        """Separated by commas, each at least 1."""
        self.assertEqual(numbers("1,64,512"), [1, 64, 512])
        for text in ("", "1,x", "0", "64,-1"):
            with self.assertRaises(argparse.ArgumentTypeError):
                numbers(text)

    def test_names(self) -> None:
        """Separated by commas."""
        self.assertEqual(names("txraft,etcd"), ["txraft", "etcd"])


@dataclass(frozen=True)
class Fake:
    """A system that may be missing."""

    name: str
    install: str | None = None
    durable: str = "no"
    note: str = ""

    def missing(self) -> str | None:
        """Say what to install."""
        return self.install

    def version(self) -> str:
        """Have none."""
        return ""


class Choice(SynchronousTestCase):
    """What is measured."""

    SYSTEMS = (Fake("one"), Fake("one-more"), Fake("other", "apt-get install other"))

    def chosen(self, *patterns: str) -> list[str]:
        """Return the names of what fits."""
        return [system.name for system in choose_from(self.SYSTEMS, list(patterns))]

    def test_choose_from_by_name_and_pattern(self) -> None:
        """A name fits itself alone; a star fits anything."""
        self.assertEqual(self.chosen("one"), ["one"])
        self.assertEqual(self.chosen("one*"), ["one", "one-more"])

    def test_choose_from_leaves_out_what_is_not_installed(self) -> None:
        """The others are measured all the same."""
        self.assertEqual(self.chosen("*"), ["one", "one-more"])

    def test_choose_from_nothing(self) -> None:
        """A name that is unknown is an error, and so is nothing to measure."""
        with self.assertRaisesRegex(SystemExit, "'two' fits none of: one, one-more"):
            self.chosen("two")
        with self.assertRaisesRegex(SystemExit, "nothing that could be measured"):
            self.chosen("other")


class Answers(SynchronousTestCase):
    """Where an answer of an HTTP server ends."""

    def test_answer_end_by_length(self) -> None:
        """Not before all of the body is there, and not behind it."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"

        self.assertEqual(answer_end(answer), len(answer))
        self.assertEqual(answer_end(answer + b"HTTP"), len(answer))
        for cut in range(len(answer)):
            self.assertIsNone(answer_end(answer[:cut]))

    def test_answer_end_of_chunks(self) -> None:
        """The empty chunk ends it."""
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"

        self.assertIsNone(answer_end(answer))
        self.assertEqual(answer_end(answer + b"0\r\n\r\n"), len(answer) + 5)

    def test_answer_end_of_a_refusal(self) -> None:
        """Failures are not counted as requests that were served."""
        with self.assertRaisesRegex(ValueError, "refused"):
            answer_end(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    def test_answer_end_without_a_length(self) -> None:
        """It would never end."""
        with self.assertRaisesRegex(ValueError, "without its length"):
            answer_end(b"HTTP/1.1 200 OK\r\n\r\n")


class Requests(SynchronousTestCase):
    """Ready-made requests."""

    def test_requests_of_every_kind_are_whole(self) -> None:
        """Each says how long it is, and a transaction has all its operations."""
        site = TxraftSite(self.mktemp())  # type: ignore[arg-type]
        keys = [f"k{number}" for number in range(2 * OPERATIONS + 1)]

        for kind in KINDS:
            for request in site.requests(kind, keys, b"value"):
                head, _, body = request.partition(b"\r\n\r\n")
                if body:
                    self.assertIn(f"Content-Length: {len(body)}".encode(), head)
        transactions = site.requests(KINDS[-1], keys, b"value")
        self.assertEqual([t.count(b'"set"') for t in transactions], [OPERATIONS] * 2)


class Keeper(Framed):
    """Keeps the frames that come."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def framesReceived(self, frames: list[bytes]) -> None:
        """Keep them."""
        self.frames += frames


class NoDelay(StringTransport):
    """A transport of which Nagle's algorithm can be turned off."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""


class Frames(SynchronousTestCase):
    """Frames of the bare data path."""

    def test_frames_cut_anywhere(self) -> None:
        """What was sent arrives, in whatever pieces."""
        sender, transport = Keeper(), NoDelay()
        sender.makeConnection(transport)
        for frame in (b"one", b"", b"three" * 100):
            sender.send(frame)
        sent = transport.value()

        for size in (1, 2, 3, 7, len(sent)):
            receiver = Keeper()
            receiver.makeConnection(NoDelay())
            for at in range(0, len(sent), size):
                receiver.dataReceived(sent[at : at + size])
            self.assertEqual(receiver.frames, [b"one", b"", b"three" * 100])


class Commands(SynchronousTestCase):
    """The commands of `python -m benchmarks`."""

    def test_each_is_explained_and_run_in_ci(self) -> None:
        """A benchmark that nobody runs does not run."""
        readme = (Path(__file__).parents[2] / "benchmarks/README.rst").read_text()

        self.assertEqual(set(COMMANDS) - {"show"}, set(MOMENTS))
        unexplained = [name for name in COMMANDS if f"``{name}" not in readme]
        self.assertEqual(unexplained, [])
