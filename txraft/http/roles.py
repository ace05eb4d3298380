"""What a client may do: read, write, or operate the cluster.

Each role includes the ones before. Consul's finer rules are not modelled.
"""

from __future__ import annotations

from enum import IntEnum

OPERATOR_PREFIXES = (b"/v1/operator/", b"/v1/snapshot")

PROBES = (b"/livez", b"/readyz")
"""What asks only whether the process answers, and whether it knows a leader."""


class Role(IntEnum):
    """How far a client is trusted."""

    READ = 1
    WRITE = 2
    OPERATOR = 3

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in Role}
"""The roles by the names that files use."""

NODE = "node"
"""In place of a role: another node, which forwards requests with their own roles."""


def needed_role(method: bytes, path: bytes) -> Role:
    """Return the least role that may send a request of *method* for *path*."""
    if path.startswith(OPERATOR_PREFIXES):
        return Role.OPERATOR
    return Role.READ if method in (b"GET", b"HEAD", b"OPTIONS") else Role.WRITE
