"""What clients asked for and were told, in the order in which it was."""

from __future__ import annotations

import threading

from txraft.testing.linearizability import Kind, Operation, Value


class History:
    """Operations of many threads, with moments that no two calls or returns share."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.complaints: list[str] = []
        self._lock = threading.Lock()
        self._moments = 0
        self._numbers = 0

    def number(self) -> int:
        """Return a number that was never returned before."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def begin(
        self,
        kind: Kind,
        key: str,
        argument: int | None = None,
        expected: int | None = None,
    ) -> Operation:
        """Note a call, of which nothing is known yet."""
        with self._lock:
            self._moments += 1
            operation = Operation(kind, key, self._moments, argument, expected)
            self.operations.append(operation)
            return operation

    def end(self, operation: Operation, result: Value = None) -> None:
        """Note that *operation* was done, and its *result*."""
        with self._lock:
            self._moments += 1
            operation.returned, operation.result = self._moments, result

    def never(self, operation: Operation) -> None:
        """Note that *operation* was not done, and never will be."""
        with self._lock:
            self.operations.remove(operation)

    def complain(self, problem: str) -> None:
        """Note an answer that no node may give."""
        with self._lock:
            self.complaints.append(problem)
