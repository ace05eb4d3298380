"""The part of `Raft` that the HTTP API calls: the node and its twin both have it."""

from __future__ import annotations

import inspect

from twisted.trial.unittest import SynchronousTestCase

from tests.support.http_network import ScriptedNode
from txraft.http.backend import RaftNode
from txraft.node.raft import Raft

METHODS = [
    name
    for name, member in vars(RaftNode).items()
    if inspect.isfunction(member) and not name.startswith("_")
]


def parameters(kind: type, method: str) -> list[str]:
    """List the names of the parameters of a method."""
    return list(inspect.signature(getattr(kind, method)).parameters)


class Backends(SynchronousTestCase):
    """Tests of the API run on the twin, so it must not have another interface."""

    def test_methods(self) -> None:
        """Both have every method, and take what the interface says."""
        self.assertGreater(len(METHODS), 10)
        for kind in (Raft, ScriptedNode):
            for method in METHODS:
                wanted = parameters(RaftNode, method)
                has = parameters(kind, method)
                self.assertEqual(has[: len(wanted)], wanted, f"{kind} {method}")
