"""Make the files of commands: each new, and for whom it is from its first moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def create_file(path: Path, mode: int) -> IO[bytes]:
    """Make the file *path* with *mode*, less what the umask takes, and open it.

    Raises: FileExistsError when anything has that name, be it a broken link.
    """
    # The mode is given when the file is made: with a chmod afterwards, others could
    # open a file with keys in between. O_EXCL follows no symbolic link that was put
    # there.
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
