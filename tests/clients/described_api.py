"""Schemathesis, which makes requests of our own description of the API.

Whatever it thinks of is answered in time, by no failure of ours, and as described.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

DESCRIPTION = Path(__file__).parents[2] / "txraft" / "http" / "openapi.yaml"
CHECKS = [
    "failure_is_explained",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
DANGEROUS = ["addPeer", "removePeer", "transferLeadership", "transferLeadershipByPost"]
"""With these it would break the cluster, sooner or later, and be right to complain."""

UNREADABLE = ["restoreBackup"]
"""It cannot make the body."""

command = [
    Path(sys.executable).with_name("st"),
    "run",
    DESCRIPTION,
    f"--url=http://127.0.0.1:{sys.argv[1]}",
    f"--checks={','.join(CHECKS)}",
    "--phases=examples,coverage,fuzzing",
    "--max-examples=5",
    "--request-timeout=20",
    "--seed=1",
    "--no-color",
    *(f"--exclude-operation-id={name}" for name in DANGEROUS + UNREADABLE),
]
with tempfile.TemporaryDirectory() as place:  # it leaves its notes where it runs
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "SCHEMATHESIS_HOOKS": "explained_failures",
        },
    )
if done.returncode:
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
sys.exit(done.returncode)
