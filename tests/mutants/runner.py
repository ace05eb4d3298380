"""Run the named tests and write those that fail, as one line of JSON.

Each has the errors that are no catch of a planted bug, as text, empty if there were none:
code that stumbles over a name or an attribute was planted badly, and any test that runs
it fails. They count wherever they are: as the test's error or the cause of it, or in a
Failure that something made meanwhile, be it logged, told, or thrown away.

With `--first` the run ends with the first that fails.
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

from twisted.python.failure import Failure

_SPEC = find_spec("txraft")
assert _SPEC is not None, "there is no package to test"
NO_CATCH = (NameError, AttributeError, ImportError)
PACKAGE = str(Path(str(_SPEC.origin)).parent)
TESTS = str(Path(PACKAGE).parent / "tests")

_Error = tuple[type[BaseException], BaseException, TracebackType | None]


class Result(unittest.TestResult):
    """Notes for each test that fails what is no catch."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.failed: dict[str, str] = {}
        self._stumbles: dict[str, None] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        """Forget what happened in the test before."""
        super().startTest(test)
        self._stumbles.clear()

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        """Note a test that ended with an error."""
        super().addError(test, err)
        self._note(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        """Note a test that claims something untrue."""
        super().addFailure(test, err)
        self._note(test, err)

    def failure_made(self, error: BaseException) -> None:
        """Note an error of the package's own code that became a Failure."""
        for each in causes(error):
            if isinstance(each, NO_CATCH) and _is_ours(each.__traceback__):
                self._stumbles[repr(each)] = None

    def _note(self, test: unittest.TestCase, err: _Error) -> None:
        for each in causes(err[1]):
            if isinstance(each, NO_CATCH):
                self._stumbles[repr(each)] = None
        self.failed[test.id()] = "; ".join(self._stumbles)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Go through an error, what it was raised from, and what was being handled."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and not any(each is other for other in seen):
            seen.append(each)
            yield each
            waiting += [each.__cause__, each.__context__]


def _is_ours(traceback: TracebackType | None) -> bool:
    """Tell whether the package's code raised an error, or what it called, but no test."""
    files = [frame.f_code.co_filename for frame, _ in walk_tb(traceback)]
    return any(file.startswith(PACKAGE) for file in files) and not (
        files[-1].startswith(TESTS)
    )


def watch_failures(result: Result) -> None:
    """Have *result* told of each Failure that is made in this process."""
    make = Failure.__init__

    def made(self: Failure, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        if isinstance(self.value, BaseException):
            result.failure_made(self.value)

    Failure.__init__ = made  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Run what *arguments* name."""
    first = "--first" in arguments
    names = [name for name in arguments if name != "--first"]
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = Result()
    result.failfast = first
    watch_failures(result)
    suite.run(result)
    sys.stdout.write("\n" + json.dumps(result.failed) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
