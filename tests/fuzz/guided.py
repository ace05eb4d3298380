"""`python -m tests.fuzz.guided TARGET ...`: one target, in the hands of atheris.

The process ends as libFuzzer likes; `tests.fuzz.coverage` starts it and reads what it
came to. Nothing here may import the package before atheris watches the import.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Feed the target for as long as the options of libFuzzer say."""
    import atheris

    with atheris.instrument_imports(include=["txraft"]):
        from tests.fuzz.targets import TARGETS
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
