"""The history: the requests of clients and their answers, in order."""

from __future__ import annotations

import threading

from txraft.testing.linearizability import ClientOperation, ClientOperationKind, Value


class History:
    """Operations of many threads, with moments that no two calls or returns share."""

    def __init__(self) -> None:
        self.operations: list[ClientOperation] = []
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
        kind: ClientOperationKind,
        key: str,
        argument: int | None = None,
        expected: int | None = None,
    ) -> ClientOperation:
        """Note a call, of which nothing is known yet."""
        with self._lock:
            self._moments += 1
            operation = ClientOperation(kind, key, self._moments, argument, expected)
            self.operations.append(operation)
            return operation

    def end(self, operation: ClientOperation, result: Value = None) -> None:
        """Note that *operation* was done, and its *result*."""
        with self._lock:
            self._moments += 1
            operation.returned, operation.result = self._moments, result

    def never(self, operation: ClientOperation) -> None:
        """Note that *operation* was not done, and never will be."""
        with self._lock:
            self.operations.remove(operation)

    def complain(self, problem: str) -> None:
        """Note an answer that no node may give."""
        with self._lock:
            self.complaints.append(problem)
