"""The workloads: registers, compare-and-set with delete, and growing lists.

Keys are used for a while and then left for new ones, so that the search for an order
stays small, however many outcomes are unknown.
"""

from __future__ import annotations

from base64 import b64decode
from random import Random
from typing import Protocol

from tests.chaos.api import Answer
from tests.chaos.history import History
from txraft.testing.linearizability import OTHER, ClientOperation, ClientOperationKind

REGISTERS = ("x", "y", "z")
OPERATIONS_PER_KEY = 30
ATTEMPTS = 3
FINE = frozenset({0, 200, 404, 409, 500, 503, 504})


class Asks(Protocol):
    """How a client reaches nodes: any one, another one each time."""

    def __call__(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask for one thing."""


class Session:
    """One client: it waits for each outcome before it asks for something else.

    *name* is unique; under it each write that is repeated is done once.
    """

    def __init__(
        self, name: str, history: History, asks: Asks, reads: str = "consistent"
    ) -> None:
        self._name = name
        self._history = history
        self._asks = asks
        self._reads = reads
        self._sequence = 0

    def read(
        self, key: str, *, is_list: bool = False
    ) -> tuple[ClientOperation, int] | None:
        """Read *key*; return what was found and its ModifyIndex, None if unknown."""
        operation = self._history.begin(ClientOperationKind.READ, key)
        answer = self._ask("GET", f"kv/{key}?{self._reads}")
        if answer.status not in (200, 404):
            return None
        text, index = "", 0
        if answer.status == 200:
            [record] = answer.json
            text, index = (
                b64decode(record["Value"] or "").decode(),
                record["ModifyIndex"],
            )
        numbers = tuple(int(word) for word in text.split())
        value = (numbers if is_list else numbers[0]) if numbers else None
        self._history.end(operation, value)
        return operation, index

    def write(self, key: str) -> ClientOperation:
        """Write a new value to *key*."""
        operation = self._history.begin(
            ClientOperationKind.WRITE, key, self._history.number()
        )
        return self._settle(
            operation, self._ask("PUT", f"kv/{key}", str(operation.argument))
        )

    def delete(self, key: str) -> ClientOperation:
        """Delete *key*."""
        operation = self._history.begin(ClientOperationKind.DELETE, key)
        return self._settle(operation, self._ask("DELETE", f"kv/{key}"))

    def compare_and_set(self, key: str) -> None:
        """Read *key*, and write a new value if nobody else has meanwhile."""
        found = self.read(key)
        if found is None:
            return
        before, index = found
        assert not isinstance(before.result, tuple), "this key holds a number"
        number = self._history.number()
        operation = self._history.begin(
            ClientOperationKind.CAS, key, number, before.result
        )
        answer, certain = self._put_once(f"kv/{key}?cas={index}", str(number))
        if answer.is_done and answer.body.strip() == b"true":
            self._history.end(operation, before.result)
        elif answer.is_done and (certain or index):
            self._history.end(operation, OTHER)
        elif answer.is_refused and certain:
            self._history.never(operation)

    def append(self, key: str) -> None:
        """Read the list *key*, and write it with one more item, if it has not grown."""
        found = self.read(key, is_list=True)
        if found is None:
            return
        before, index = found
        items = before.result or ()
        assert isinstance(items, tuple), "this key holds a list"
        number = self._history.number()
        operation = self._history.begin(ClientOperationKind.APPEND, key, number)
        text = " ".join(map(str, (*items, number)))
        answer, certain = self._put_once(f"kv/{key}?cas={index}", text)
        if answer.is_done and answer.body.strip() == b"true":
            self._history.end(operation)
        elif answer.is_done or (answer.is_refused and certain):
            self._history.never(operation)

    def _put_once(self, path: str, body: str) -> tuple[Answer, bool]:
        """Put until the outcome is known; tell whether it was at the first attempt.

        A condition on an index that fails at a repetition has failed before as well:
        the index never comes back.
        """
        self._sequence += 1
        headers = {
            "X-Txraft-Client": self._name,
            "X-Txraft-Sequence": str(self._sequence),
        }
        for attempt in range(ATTEMPTS):
            answer = self._ask("PUT", path, body, headers)
            if answer.is_done or (answer.is_refused and attempt == 0):
                return answer, attempt == 0
        return answer, False

    def _settle(self, operation: ClientOperation, answer: Answer) -> ClientOperation:
        if answer.is_done and answer.body.strip() == b"true":
            self._history.end(operation)
        elif answer.is_refused:
            self._history.never(operation)
        return operation

    def _ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        answer = self._asks(method, path, body, headers)
        if answer.status not in FINE:
            problem = f"{method} {path} was answered {answer.status} {answer.body!r}"
            self._history.complain(problem)
        return answer


class Workload:
    """Chooses what a session does next; shared by all of them."""

    def __init__(self) -> None:
        self._uses = 0

    def act(self, session: Session, random: Random) -> None:
        """Let *session* do one thing."""
        self._uses += 1
        generation = self._uses // (3 * OPERATIONS_PER_KEY)
        match random.randrange(6):
            case 0 | 1:
                self._act_on_register(session, random)
            case 2 | 3:
                self._act_on_record(session, f"c{generation}", random)
            case _:
                session.append(f"l{generation // 4}")

    def _act_on_register(self, session: Session, random: Random) -> None:
        key = random.choice(REGISTERS)
        if random.random() < 0.5:
            session.read(key)
        else:
            session.write(key)

    def _act_on_record(self, session: Session, key: str, random: Random) -> None:
        match random.randrange(8):
            case 0:
                session.delete(key)
            case 1:
                session.write(key)
            case 2:
                session.read(key)
            case _:
                session.compare_and_set(key)
