"""Assigns the processor time of the reactor thread to pieces of the program."""

from __future__ import annotations

import cProfile
import os
import pstats
import time
from collections import Counter
from typing import Any

PIECES = (
    ("txraft/kv/", "state machine"),
    ("txraft/core/", "consensus"),
    ("txraft/node/", "turn, waiting proposals, sending, applying"),
    ("txraft/wire/", "wire format"),
    ("txraft/transport/", "connections"),
    ("benchmarks/", "what makes the load"),
    ("twisted/internet/defer", "Deferreds"),
    ("twisted/", "reactor and sockets"),
)
OTHER = "everything else"

Function = tuple[str, int, str]


class Account:
    """Profiles the thread that makes it, in processor time."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile(time.thread_time)

    def start(self) -> None:
        """Begin."""
        self._profile.enable()

    def stop(self) -> dict[str, float]:
        """End, and return the seconds that each piece took."""
        self._profile.disable()
        stats: dict[Function, Any] = pstats.Stats(self._profile).stats  # type: ignore[attr-defined]
        return dict(shares(stats))


def shares(stats: dict[Function, Any]) -> Counter[str]:
    """Add up *stats* of a profile; what is built in counts for whoever calls it."""
    spent: Counter[str] = Counter()
    for function, (_, _, own, _, callers) in stats.items():
        if function[0] == "~" and callers:
            for caller, (_, _, share, _) in callers.items():
                spent[piece(caller)] += share
        else:
            spent[piece(function)] += own
    return spent


def piece(function: Function) -> str:
    """Name the piece that *function* belongs to."""
    path = function[0].replace(os.sep, "/")
    return next((name for part, name in PIECES if part in path), OTHER)
