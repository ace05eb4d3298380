"""Roles of clients: read, write, or operate the cluster.

Each role includes the ones before it. Consul's finer rules do not exist here.
"""

from __future__ import annotations

from enum import IntEnum

OPERATOR_PREFIXES = (b"/v1/operator/", b"/v1/snapshot")

PROBES = (b"/livez", b"/readyz")
"""Paths that tell only whether the process answers and whether it knows a leader."""


class Role(IntEnum):
    """The permissions of a client."""

    READ = 1
    WRITE = 2
    OPERATOR = 3

    def __str__(self) -> str:
        return self.name.lower()


ROLES = {str(role): role for role in Role}
"""The roles by the names that files use."""

NODE = "node"
"""Stands for a role: another node, which forwards requests with their own roles."""


def needed_role(method: bytes, path: bytes) -> Role:
    """Return the least role that may send a request of *method* for *path*."""
    if path.startswith(OPERATOR_PREFIXES):
        return Role.OPERATOR
    return Role.READ if method in (b"GET", b"HEAD", b"OPTIONS") else Role.WRITE
