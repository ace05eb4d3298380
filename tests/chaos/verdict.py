"""The verdict at the end: histories are linearizable, and states are equal."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.api import ask
from tests.chaos.history import History
from tests.chaos.node import Node
from txraft.testing.linearizability import (
    ClientOperationKind,
    NotLinearizable,
    by_key,
    check,
)

DUMP_SECONDS = 30.0
TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:\t?  .*\n)*\t?(.*)")
FAILURES_OF_DISKS = ("[Errno 5]", "[Errno 28]")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was *found*, and how many keys were too hard to decide."""

    found: list[str]
    undecided: int


def judge(history: History) -> Judgement:
    """Check what clients were told, key by key."""
    found, undecided = list(history.complaints), 0
    for key, operations in sorted(by_key(history.operations).items()):
        try:
            undecided += check(operations)
        except NotLinearizable as error:
            found.append(f"the history of {key!r} is not linearizable: {error}")
    return Judgement(found, undecided)


def agree(nodes: Sequence[Node], seconds: float) -> list[Any] | str:
    """Wait until all *nodes* hold the same records, also those that nobody asked for.

    Returns: the records; or which nodes differ, and in what.
    """
    end = time.monotonic() + seconds
    while True:
        states = {node.number: _records(node) for node in nodes}
        first = next(iter(states.values()))
        if first is not None and all(state == first for state in states.values()):
            return first
        if time.monotonic() > end:
            return difference(states)
        time.sleep(0.3)


def _records(node: Node) -> list[Any] | None:
    """Return what *node* itself has, None if it does not say."""
    answer = ask(node.host, "GET", "kv/?recurse&stale", timeout=DUMP_SECONDS)
    if answer.status == 404:
        return []
    records: list[Any] | None = answer.json if answer.is_done else None
    return records


def difference(states: Mapping[int, Sequence[Any] | None]) -> str:
    """Say how *states*, by the number of the node, differ."""
    silent = [f"n{number}" for number, state in states.items() if state is None]
    if silent:
        return f"no records from {', '.join(silent)}"
    sets = {
        number: {str(record) for record in state or ()}
        for number, state in states.items()
    }
    common = set.intersection(*sets.values())
    parts = [
        f"n{number} has {len(own - common)} of its own, {min(own - common, default='')}"
        for number, own in sets.items()
    ]
    return "the states differ: " + "; ".join(parts)


def unexpected(output: str) -> list[str]:
    """List the tracebacks in what a node wrote, but those of a disk that failed."""
    found = [
        match[0]
        for match in TRACEBACK.finditer(output)
        if not any(failure in match[1] for failure in FAILURES_OF_DISKS)
    ]
    return found + [line for line in output.splitlines() if "Unhandled" in line]


def counts(history: History) -> dict[str, dict[str, int]]:
    """Count operations by kind: all, and those whose outcome is known."""
    return {
        kind.name.lower(): {
            "asked": sum(o.kind is kind for o in history.operations),
            "known": sum(o.kind is kind and o.is_known for o in history.operations),
        }
        for kind in ClientOperationKind
    }
