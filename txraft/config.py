"""`Config` holds every tunable of a node, with its unit and default.

Durations are float seconds, sizes are bytes. A `Config` is a frozen value: the
node never changes the one it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from txraft.consistency import (
    contradictions,
    numbers_of,
    out_of_bounds,
    wrong_types,
)
from txraft.errors import ConfigError

MINIMUM_TIMEOUT = 0.005


def _option(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The tunables of one node; hashicorp/raft's fields have its names and defaults.

    Source: hashicorp/raft `Config`; the fields below `protocol_version` are ours.
    """

    heartbeat_timeout: float = _option(
        1.0,
        "Seconds a follower waits without contact before it campaigns, drawn "
        "between once and twice this. A leader sends ten heartbeats in this time.",
    )
    election_timeout: float = _option(
        1.0,
        "Seconds a candidate waits for votes before a new round, drawn between once "
        "and twice this. At least `heartbeat_timeout`.",
    )
    commit_timeout: float = _option(
        0.05,
        "Seconds after which an idle leader tells followers its commit index.",
    )
    leader_lease_timeout: float = _option(
        0.5,
        "Seconds a leader goes on leading without answers from a quorum. At most "
        "`heartbeat_timeout`.",
    )
    max_append_entries: int = _option(
        64, "Entries in one AppendEntries request, 1 to 1024."
    )
    max_inflight_requests: int = _option(
        2, "AppendEntries requests in flight to one follower, 1 to 128."
    )
    snapshot_interval: float = _option(
        120.0,
        "Seconds between checks whether a snapshot is due, drawn between once and "
        "twice this.",
    )
    snapshot_threshold: int = _option(
        8192, "Entries applied since the last snapshot that make a new one due."
    )
    trailing_logs: int = _option(
        10240, "Entries kept in the log behind a snapshot, for followers that lag."
    )
    max_kept_for_snapshot_entries: int = _option(
        131072,
        "Entries that a leader keeps in the log, at most, for a follower that is "
        "receiving a snapshot, so that the follower needs no second one at once. "
        "`trailing_logs` entries are kept in any case.",
    )
    shutdown_on_remove: bool = _option(
        True, "Whether a node shuts down when its own removal has committed."
    )
    enable_single_node: bool = _option(
        False,
        "Whether a node that knows no peers bootstraps a cluster of its own; without "
        "it, such a node waits to be added.",
    )
    disable_bootstrap_after_elect: bool = _option(
        True,
        "Accepted for users of hashicorp/raft, and without effect: a node that was "
        "removed never bootstraps a cluster from the data that it still holds.",
    )
    start_as_leader: bool = _option(
        False,
        "Whether the only voter campaigns at once instead of waiting. It takes a new "
        "term, because nobody may lead a term twice.",
    )
    protocol_version: int = _option(1, "Wire protocol that this node writes, 0 to 3.")
    pre_vote: bool = _option(
        True,
        "Whether a candidate first asks if it could win, before it raises its term.",
    )
    max_append_bytes: int = _option(
        1 << 20, "Bytes of entries in one AppendEntries request; one entry may exceed."
    )
    max_entry_bytes: int = _option(
        1 << 20,
        "Bytes of one entry's data. At most `max_pending_bytes`, and no more than "
        "members accept: see `max_message_bytes`, `max_string_bytes` and the log's "
        "format.",
    )
    max_pending_entries: int = _option(
        65536, "Entries that wait for an outcome before more are refused."
    )
    max_pending_bytes: int = _option(
        64 << 20, "Bytes of entries that wait for an outcome before more are refused."
    )
    max_tail_bytes: int = _option(
        8 << 20,
        "Approximate bytes of recent entries kept in memory for followers and the FSM. "
        "Older entries are read back from the disk, also to be applied.",
    )
    apply_slice: float = _option(
        0.005,
        "Seconds for which the FSM applies entries before other work gets its turn.",
    )
    stuck_timeout: float = _option(
        10.0,
        "Seconds without an applied entry, while committed ones wait, after which the "
        "node logs that its FSM hangs. The node goes on waiting.",
    )
    notify: Callable[[bool], object] | None = field(
        default=None,
        metadata={"doc": "Called with True on gaining, False on losing leadership."},
    )


def default_config() -> Config:
    """Make a configuration of defaults (hashicorp/raft's `DefaultConfig`)."""
    return Config()


def validate_config(config: Config, limits: Mapping[str, float] | None = None) -> None:
    """Check *config*; with *limits* of a transport, by name, also against those.

    All faults are reported together.
    Raises: ConfigError, whose `problems` names each field and what would be right.
    """
    limits = limits or {}
    problems = wrong_types(config)
    if config.notify is not None and not callable(config.notify):
        problems.append(f"notify is {config.notify!r}, it must be a function or None")
    if not problems:  # a value of a wrong type cannot be compared with a bound
        numbers = numbers_of(config)
        problems = [
            *_too_short(config),
            *_out_of_range(config),
            *out_of_bounds({**numbers, **limits}),
            *contradictions(numbers),
            *contradictions(numbers, limits),
        ]
    if problems:
        raise ConfigError(problems)


def _too_short(config: Config) -> list[str]:
    floors = {
        "heartbeat_timeout": MINIMUM_TIMEOUT,
        "election_timeout": MINIMUM_TIMEOUT,
        "commit_timeout": 0.001,
        "snapshot_interval": MINIMUM_TIMEOUT,
        "leader_lease_timeout": MINIMUM_TIMEOUT,
        "apply_slice": 0.0001,
        "stuck_timeout": 0.1,
    }
    return [
        f"{name} is {getattr(config, name)} s, below the least of {floor} s"
        for name, floor in floors.items()
        # Not `<`: NaN, which compares as neither, must be refused as well.
        if not getattr(config, name) >= floor
    ]


def _out_of_range(config: Config) -> list[str]:
    ranges = {
        "max_append_entries": (1, 1024),
        "max_inflight_requests": (1, 128),
        "protocol_version": (0, 3),
        "snapshot_threshold": (1, None),
        "trailing_logs": (0, None),
        "max_kept_for_snapshot_entries": (0, None),
        "max_append_bytes": (1, None),
        "max_pending_entries": (1, None),
        "max_pending_bytes": (1, None),
        "max_tail_bytes": (1, None),
    }
    problems = []
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if value < low or (high is not None and value > high):
            bound = f"{low} to {high}" if high is not None else f"at least {low}"
            problems.append(f"{name} is {value}, it must be {bound}")
    return problems


def field_documentation() -> list[tuple[str, str, Any, str]]:
    """List each field's name, type, default and sentence, for the manual."""
    return [(f.name, str(f.type), f.default, f.metadata["doc"]) for f in fields(Config)]
