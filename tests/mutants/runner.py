"""Run the named tests and write the names of those that fail, as one line of JSON.

With `--first` the run ends with the first of them.
"""

from __future__ import annotations

import json
import sys
import unittest


def main(arguments: list[str]) -> None:
    """Run what *arguments* name."""
    first = "--first" in arguments
    names = [name for name in arguments if name != "--first"]
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TestResult()
    result.failfast = first
    suite.run(result)
    failed = [test.id() for test, _ in (*result.failures, *result.errors)]
    sys.stdout.write("\n" + json.dumps(failed) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
