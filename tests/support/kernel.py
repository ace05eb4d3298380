"""A reactor that waits for descriptors, and a kernel whose syncs end on request."""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from types import ModuleType

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

AIO = "caio.linux_aio"


class FDReactor:
    """Has its readers read when a test gives it a turn."""

    def __init__(self) -> None:
        directlyProvides(self, IReactorFDSet)
        self.readers: list[IReadDescriptor] = []

    def addReader(self, reader: IReadDescriptor) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def wait(self) -> list[IReadDescriptor]:
        """Return the readers that have something to read, as soon as one has."""
        ready, _, _ = select.select(self.readers, [], [], 10)
        assert ready, "nothing came"
        return ready

    def turn(self) -> None:
        for reader in self.wait():
            reader.doRead()


class Operation:
    """A sync of *descriptor*."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.callback: Callable[[int], object] = NotImplemented

    @classmethod
    def fdsync(cls, descriptor: int) -> Operation:
        return cls(descriptor)

    def set_callback(self, callback: Callable[[int], object]) -> bool:
        self.callback = callback
        return True


class Context:
    """A queue of the kernel's; a byte in a pipe stands for each sync that ended."""

    def __init__(self, aio: FakeAio, max_requests: int) -> None:
        if aio.has_no_queue:
            raise SystemError(11, "Resource temporarily unavailable")
        aio.contexts.append(self)
        self._aio = aio
        self.fileno, self._told = os.pipe()
        os.set_blocking(self.fileno, False)
        self.ended: deque[tuple[Operation, int]] = deque()

    def submit(self, *operations: Operation) -> int:
        if self._aio.refusal is not None:
            raise self._aio.refusal
        self._aio.under_way += operations
        return len(operations)

    def end(self, operation: Operation, result: int) -> None:
        self.ended.append((operation, result))
        os.write(self._told, b"\0")

    def poll(self) -> int:
        return len(os.read(self.fileno, 4096))

    def process_events(self) -> int:
        ended, self.ended = self.ended, deque()
        for operation, result in ended:
            operation.callback(result % (1 << 64))  # unsigned, as caio tells it
        return len(ended)

    def close(self) -> None:
        os.close(self.fileno)
        os.close(self._told)


class FakeAio(ModuleType):
    """`caio.linux_aio` for *case*, with a kernel of its own.

    `under_way` are the syncs that it was given; each ends with `end`. With a *refusal*
    it takes no more, and with *has_no_queue* it takes none at all.
    """

    Operation = Operation

    def __init__(self, case: SynchronousTestCase) -> None:
        super().__init__(AIO)
        self.Context = partial(Context, self)
        self.contexts: list[Context] = []
        self.under_way: list[Operation] = []
        self.refusal: Exception | None = None
        self.has_no_queue = False
        case.addCleanup(self._close)
        replace_aio(case, self)

    def end(self, number: int = 0, result: int = 0) -> None:
        """End one of `under_way`, with the negative number of an error or 0."""
        self.contexts[-1].end(self.under_way.pop(number), result)

    def _close(self) -> None:
        for context in self.contexts:
            context.close()


def replace_aio(case: SynchronousTestCase, module: ModuleType | None) -> None:
    """Let *case* import *module* for `caio.linux_aio`; None, and there is none."""

    def restore() -> None:
        sys.modules.pop(AIO, None)
        sys.modules.update(before)

    before = {name: sys.modules[name] for name in (AIO,) if name in sys.modules}
    case.addCleanup(restore)
    sys.modules[AIO] = module  # type: ignore[assignment]  # None forbids the import
