"""Measures one command over a store of a million keys, and the memory of these.

    python -m benchmarks store [--keys 1000000] [--rounds 3]

Each is one step of the state machine, in which a node does nothing else. Told is the
processor time of the step, as other processes on the machine would lengthen any other.
Memory is that of a process of its own, by what it has more than before.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.figures import Spread, short, with_range
from benchmarks.options import make_parser
from benchmarks.report import Report
from benchmarks.tables import Table
from txraft.core.entry import Entry, LogType
from txraft.kv.commands import (
    LEVEL,
    MAX_VISITED_KEYS_3,
    Operation,
    encode_put,
    encode_transact,
)
from txraft.kv.state import KeyValueFSM
from txraft.kv.verbs import OperationKind

VALUE = b"x" * 16


def filled(keys: int) -> KeyValueFSM:
    """Make a store of so many *keys*, of which the first few are under `a/`."""
    fsm = KeyValueFSM()
    fsm.activate(LEVEL)
    few = min(keys, MAX_VISITED_KEYS_3)
    for number in range(keys):
        key = f"{'a' if number < few else 'k'}/{number:08d}"
        apply(fsm, number + 1, encode_put(key, VALUE))
    return fsm


def apply(fsm: KeyValueFSM, index: int, command: bytes) -> object:
    """Apply one command."""
    return fsm.apply(Entry(index, 1, LogType.COMMAND, command))


def trees(fsm: KeyValueFSM, *operations: Operation) -> None:
    """Apply a transaction of *operations*."""
    apply(fsm, 1 << 40, encode_transact(operations, LEVEL))


def unheard(fsm: KeyValueFSM) -> None:
    """Read a tree in a transaction, where nobody waits for it."""
    fsm.is_awaited = lambda index: False
    trees(
        fsm, Operation(OperationKind.SET, "z"), Operation(OperationKind.GET_TREE, "a/")
    )
    fsm.is_awaited = lambda index: True


def delete(fsm: KeyValueFSM) -> None:
    """Delete all keys in one step."""
    trees(fsm, Operation(OperationKind.DELETE_TREE, ""))


STEPS: dict[str, Callable[[KeyValueFSM], object]] = {
    "capture of a snapshot": lambda fsm: fsm.snapshot(),
    "the first listing: putting all keys in order": lambda fsm: next(fsm.keys()),
    f"transaction that reads {MAX_VISITED_KEYS_3} keys": lambda fsm: trees(
        fsm, Operation(OperationKind.SET, "z"), Operation(OperationKind.GET_TREE, "a/")
    ),
    "the same, where nobody waits for its answer": unheard,
    "deleting all, after a listing": delete,
}
"""What is measured one after the other on one store."""

UNLISTED = "deleting all, without one before"


def measure(keys: int) -> dict[str, float]:
    """Take each step once; return milliseconds, and bytes of memory for a key."""
    gc.freeze()
    before = resident()
    fsm = filled(keys)
    found = {"memory": (resident() - before) / keys}
    for name, step in STEPS.items():
        found[name] = milliseconds(step, fsm)
    found[UNLISTED] = milliseconds(delete, filled(keys))
    return found


def milliseconds(step: Callable[[KeyValueFSM], object], fsm: KeyValueFSM) -> float:
    """Return the processor time of a *step*."""
    began = time.process_time()
    step(fsm)
    return (time.process_time() - began) * 1000


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write what was asked for."""
    parser = make_parser("store", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    report = Report("store", options, [])
    found: list[dict[str, float]] = []
    for _ in range(options.rounds):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append(process.submit(measure, options.keys).result())
    report.data["samples"] = found
    report.add(_table(options.keys, found))
    report.finish()


def _table(keys: int, found: Sequence[dict[str, float]]) -> Table:
    memory = Spread.of([sample["memory"] for sample in found]).median
    title = f"One step over {keys} keys, each of which takes {short(memory)} bytes"
    table = Table(title, ["step", "ms of processor time", "µs for each key"])
    for name in (*STEPS, UNLISTED):
        took = Spread.of([sample[name] for sample in found])
        table.add(name, with_range(took), short(took.median * 1000 / keys))
    return table


if __name__ == "__main__":
    main()
