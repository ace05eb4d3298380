"""One table of the rules between limits, and between limits and the log's format.

A contradiction between two limits is reported when they are set. Otherwise the first
entry of that size would stop a node, or be sent again and again in vain. Limits of
different parts of a node have different names, so that a rule can name any two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

LOG_ENTRY_BYTES = 64 << 20
"""The largest entry, as it is encoded, that the log's format takes."""

ENTRY_OVERHEAD_BYTES = 256
"""The bytes that encoding adds to an entry's data, at most."""

MESSAGE_OVERHEAD_BYTES = 4096
"""The bytes of a message beside its entries, such as its sender, at most."""

COMMAND_OVERHEAD_BYTES = 1024
"""The bytes of a command that sets a key, beside the key and its value."""

RESTORE_ENTRY_BYTES = (128 << 10) + 1024
"""The bytes of an entry that restores a piece of a backup, at most."""

STATE_SESSIONS = 65536
"""The most sessions that the key-value state machine holds, whatever a node allows."""

MAX_SECONDS = 366 * 86400.0
"""The longest duration, a year. To turn something off there are other settings."""

MAY_BE_ZERO = ("drain_timeout", "drain_wait")
"""Durations that may be 0: nothing is waited for then."""

SECONDS = ("_timeout", "_wait", "_interval", "_slice", "_ttl_min")


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A rule: *setting* is at least *times* the sum of *others*, plus *extra*.

    *otherwise* says what would happen otherwise. The rule applies only where all
    settings in *where* exist.
    """

    setting: str
    others: tuple[str, ...]
    otherwise: str
    extra: int = 0
    times: int = 1
    where: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """Every setting that the rule names."""
        return {self.setting, *self.others, *self.where}

    def problem(self, values: Mapping[str, float]) -> str | None:
        """Describe how *values* break the rule; None if they do not."""
        least = self.times * sum(values[name] for name in self.others) + self.extra
        value = values[self.setting]
        if value >= least:
            return None
        way_out = f"set {self.setting} to at least {_shown(self.setting, least)}"
        if len(self.others) == 1:
            [other] = self.others
            most = (value - self.extra) / self.times
            if most > 0:
                most = most if other.endswith(SECONDS) else int(most)
                way_out += f", or {other} to at most {_shown(other, most)}"
        return (
            f"{self.setting} ({_shown(self.setting, value)}) is less than "
            f"{self._demand(values)}: {self.otherwise}; {way_out}"
        )

    def _demand(self, values: Mapping[str, float]) -> str:
        parts = [f"{name} ({_shown(name, values[name])})" for name in self.others]
        if self.times > 1:
            parts[0] = f"{self.times} times {parts[0]}"
        if self.extra:
            parts.append(
                f"{self.extra} for what is around it" if parts else str(self.extra)
            )
        return " and ".join(parts)


TABLE = (
    # Time
    AtLeast(
        "heartbeat_timeout",
        ("leader_lease_timeout",),
        "a leader would lead on while others are elected",
    ),
    AtLeast(
        "election_timeout",
        ("heartbeat_timeout",),
        "elections would be begun anew before they can be won",
    ),
    # One entry, on its way from the client to every log
    AtLeast(
        "max_pending_bytes",
        ("max_entry_bytes",),
        "the largest entry would be refused for ever",
    ),
    AtLeast(
        "max_string_bytes",
        ("max_entry_bytes",),
        "a member would not take the largest entry",
    ),
    AtLeast(
        "max_message_bytes",
        ("max_entry_bytes",),
        "a member would not take the largest entry",
        extra=ENTRY_OVERHEAD_BYTES + MESSAGE_OVERHEAD_BYTES,
    ),
    AtLeast(
        "max_message_bytes",
        ("max_append_bytes",),
        "a member would not take a full request",
        extra=MESSAGE_OVERHEAD_BYTES,
    ),
    AtLeast(
        "max_entries",
        ("max_append_entries",),
        "a member would not take a full request",
    ),
    AtLeast(
        "max_unsent_bytes",
        ("max_entry_bytes",),
        "a request behind the largest entry would end the connection",
        extra=ENTRY_OVERHEAD_BYTES + MESSAGE_OVERHEAD_BYTES,
    ),
    AtLeast(
        "max_unsent_bytes",
        ("max_append_bytes",),
        "a request behind a full one would end the connection",
        extra=MESSAGE_OVERHEAD_BYTES,
    ),
    AtLeast(
        "max_buffered_bytes",
        ("max_message_bytes",),
        "a member could not take a whole message of the largest size",
    ),
    AtLeast(
        "max_outbound_connections",
        ("max_idle_connections",),
        "idle connections could leave no room for another member's",
    ),
    # What HTTP makes entries of
    AtLeast(
        "max_entry_bytes",
        ("max_value_bytes", "max_key_bytes"),
        "the largest value could not be stored",
        extra=COMMAND_OVERHEAD_BYTES,
    ),
    AtLeast(
        "max_entry_bytes",
        (),
        "no backup could be restored",
        extra=RESTORE_ENTRY_BYTES,
        where=("max_backup_bytes",),
    ),
    # HTTP
    AtLeast(
        "request_timeout",
        ("leader_wait",),
        "requests would be answered before they have waited for a leader",
    ),
    AtLeast(
        "drain_timeout",
        ("drain_wait",),
        "a node would stop before those who ask /readyz know of it",
    ),
    AtLeast(
        "max_wait",
        ("default_wait",),
        "a blocking query that does not say how long would wait too long",
    ),
    AtLeast(
        "max_body_bytes",
        ("max_value_bytes",),
        "the largest value could not be sent",
    ),
    AtLeast(
        "max_bodies_bytes",
        ("max_body_bytes",),
        "the largest body would be refused for ever",
    ),
    AtLeast(
        "max_line_bytes",
        ("max_key_bytes",),
        "the longest key could not be named, as keys travel percent-encoded",
        times=4,
    ),
    AtLeast(
        "max_headers_bytes",
        ("max_line_bytes",),
        "the longest request line would be refused",
    ),
    AtLeast(
        "max_unread_bytes",
        ("max_answer_bytes",),
        "the longest answer would close its client's connection",
    ),
)
"""Which limit must be at least which other. Each row's reason is in its message."""

BOUNDS: Mapping[str, tuple[float, float | None, str]] = {
    "max_entry_bytes": (
        1,
        LOG_ENTRY_BYTES - ENTRY_OVERHEAD_BYTES,
        "the log's format takes no larger entry",
    ),
    "max_string_bytes": (
        4096,
        LOG_ENTRY_BYTES - ENTRY_OVERHEAD_BYTES,
        "the log's format takes no larger entry, and members' names need some",
    ),
    "max_message_bytes": (4096, None, "members' names need so much"),
    "max_response_bytes": (4096, None, "members' names need so much"),
    "max_keys": (16, None, "messages of members have that many"),
    "max_lists": (4, None, "messages of members have that many"),
    "max_ahead_bytes": (1 << 16, None, "that much arrives at once"),
    "max_connections_per_peer": (
        4,
        None,
        "a member has one for heartbeats, entries, a snapshot and votes each",
    ),
    "max_inbound_connections": (
        4,
        None,
        "a member has one for heartbeats, entries, a snapshot and votes each",
    ),
    "session_ttl_min": (0.001, 86400, "a session has a TTL of at most 24 hours"),
    "drain_timeout": (0, None, "0 stops a node at once"),
    "drain_wait": (0, None, "0 waits for nobody"),
    "max_sessions": (1, STATE_SESSIONS, "the state machine holds no more"),
    "max_outbound_connections": (
        4,
        None,
        "a member needs one for heartbeats, entries, a snapshot and votes each",
    ),
}
"""Limits that must fit the formats: the least, the most, and why."""


def contradictions(*groups: Mapping[str, float]) -> list[str]:
    """List the rules of `TABLE` that are broken, each with both settings and a way out.

    With several groups only rules between two of them count. A value that is out of
    bounds is left out: `out_of_bounds` reports it.
    """
    values = {name: value for group in groups for name, value in group.items()}
    for name in [name for name in values if _out_of_bounds(name, values[name])]:
        del values[name]
    problems = [
        rule.problem(values)
        for rule in TABLE
        if values.keys() >= rule.names
        # A rule within one group was reported when that group was checked by itself.
        and (len(groups) == 1 or not any(g.keys() >= rule.names for g in groups))
    ]
    return [problem for problem in problems if problem is not None]


def out_of_bounds(values: Mapping[str, float]) -> list[str]:
    """List the *values* that the formats of log and messages do not allow."""
    problems = [_out_of_bounds(name, value) for name, value in values.items()]
    return [problem for problem in problems if problem is not None]


def _out_of_bounds(name: str, value: float) -> str | None:
    least, most, why = BOUNDS.get(name, (value, None, ""))
    if value >= least and (most is None or value <= most):
        return None
    allowed = f"at least {least}" if most is None else f"{least} to {most}"
    return f"{name} is {value}, it must be {allowed}: {why}"


def wrong_types(limits: Any) -> list[str]:
    """List the fields of the dataclass *limits* that are not of their kind.

    A float is finite; a truth value is no number.
    """
    return [
        f"{field.name} is {value!r}, it must be {_KINDS[kind]}"
        for field in fields(limits)
        if (kind := str(field.type)) in _KINDS
        and not _is_a(kind, value := getattr(limits, field.name))
    ]


def numbers_of(*limits: Any) -> dict[str, float]:
    """Map the names of the numbers in the dataclasses *limits* to their values."""
    return {
        field.name: getattr(part, field.name)
        for part in limits
        for field in fields(part)
        if str(field.type) in ("int", "float")
    }


def not_above_zero(values: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """List the *names* whose value is 0 or less."""
    return [
        f"{name} is {values[name]}, it must be above 0"
        for name in names
        if not values[name] > 0
    ]


_KINDS = {
    "int": "a whole number",
    "float": f"a number, at most {MAX_SECONDS:.0f}",
    "bool": "true or false",
}


def _is_a(kind: str, value: object) -> bool:
    if kind == "float":
        is_number = type(value) in (int, float)
        return is_number and isfinite(value) and value <= MAX_SECONDS  # type: ignore[arg-type, operator]
    return type(value).__name__ == kind


def _shown(name: str, value: float) -> str:
    return f"{value:g} s" if name.endswith(SECONDS) else str(value)
