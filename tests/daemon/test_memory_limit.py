"""The usable memory: the least of the machine's, the group's and the process's."""

import resource
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.daemon import memory_limit as memory
from txraft.daemon.memory_limit import (
    LEAST_BYTES,
    NODE_BYTES,
    RESERVED_BYTES,
    usable_memory,
)


class Usable(SynchronousTestCase):
    """The least of what the system says, without what a node takes besides."""

    def setUp(self) -> None:
        self.limits: dict[int, int] = {}
        self.patch(memory, "_CGROUP_FILES", ())
        self.patch(
            memory,
            "getrlimit",
            lambda limit: (self.limits.get(limit, resource.RLIM_INFINITY), 0),
        )
        self.patch(
            memory.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1}.get(name, 1 << 40)
        )

    def cgroup(self, text: str) -> None:
        path = Path(self.mktemp())
        path.write_text(text)
        self.patch(memory, "_CGROUP_FILES", (str(path), "/no/such/file"))

    def test_machine(self) -> None:
        self.assertEqual(usable_memory(), (1 << 40) - NODE_BYTES)

    def test_control_group(self) -> None:
        self.cgroup("max\n")
        self.assertEqual(usable_memory(), (1 << 40) - NODE_BYTES)

        self.cgroup("1073741824\n")
        self.assertEqual(usable_memory(), (1 << 30) - NODE_BYTES)

    def test_limits_of_the_process(self) -> None:
        """They count address space, a part of which is never touched."""
        for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            self.limits = {limit: 1 << 30}
            self.assertEqual(usable_memory(), (1 << 30) - RESERVED_BYTES - NODE_BYTES)

    def test_least(self) -> None:
        self.cgroup("1000")

        self.assertEqual(usable_memory(), LEAST_BYTES)
