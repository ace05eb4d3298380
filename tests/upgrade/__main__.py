"""Rolls a cluster of real processes from an earlier commit to this one, and back.

    python -m tests.upgrade

Under load, node by node: nothing that was acknowledged may be lost, and the new level
of the state machine is active only after the last one. It takes less than a minute. The
earlier commit is taken from the history of this checkout.
"""

from __future__ import annotations

import subprocess
import sys
from tempfile import TemporaryDirectory

from tests.upgrade.earlier import CommitMissing, check_commit


def main() -> int:
    """Run it; return the exit status."""
    try:
        check_commit()
    except CommitMissing as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "twisted.trial"]
        command += ["--temp-directory", f"{directory}/trial", "tests.upgrade.rolling"]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
