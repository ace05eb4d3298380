"""Planted bugs in what clients that were made for Consul rely on."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="every session ends after one TTL",
        at="lifetime_ms",
        old="session.ttl_ms if is_exact else 2 * session.ttl_ms",
        new="session.ttl_ms",
        caught_by="tests.http.test_sessions.Expiry.test_session_ends_at_twice_its_ttl",
    ),
    Mutant(
        name="a renewal lasts for one TTL",
        at="Expiry._begin_anew",
        old="lifetime_ms(id, session)",
        new="session.ttl_ms",
        caught_by="tests.http.test_sessions.Expiry.test_session_ends_at_twice_its_ttl",
    ),
    Mutant(
        name="a session cannot be made to end after one TTL",
        at="exact_id",
        old='f"{uuid[:_VERSION_AT]}{EXACT_VERSION}{uuid[_VERSION_AT + 1:]}"',
        new="uuid",
        caught_by="tests.http.test_sessions.Expiry"
        ".test_new_leader_ends_each_at_its_time",
    ),
    Mutant(
        name="what is refused for ever is tried again",
        at="ClientCalls._attempt",
        old='is_final or outcome == "refused"',
        new="is_final",
        caught_by="tests.client.test_attempts.Attempts.test_refusal_stands",
    ),
    Mutant(
        name="a flag of a write counts by presence",
        at="HTTPCall.flag",
        old="self.writes and value not in ...",
        new="False",
        caught_by="tests.http.test_keys.Parameters"
        ".test_flags_of_writes_take_no_other_value",
    ),
    Mutant(
        name="a write ignores a condition that is mistyped",
        at="check_parameters",
        old="given.keys() - known - _ALWAYS - _HINTS",
        new="()",
        caught_by="tests.http.test_parameters.Writes.test_unknown_parameters",
    ),
    Mutant(
        name="a check that nobody has run passes",
        at="Service.checks_as_json",
        old='"critical"',
        new='"passing"',
        caught_by="tests.http.test_agent.Services.test_checks_never_pass",
    ),
)
