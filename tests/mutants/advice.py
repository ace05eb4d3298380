"""Planted bugs in what operators and callers are told of a cluster that is unwell."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a node waits for a leader until its client has hung up",
        at="Leadership._patience",
        old="min(asked, longest)",
        new="longest",
        caught_by="tests.http.test_leader.WithoutLeader.test_client_with_less_time",
    ),
    Mutant(
        name="a client gives a node all of its time to wait for a leader",
        at="Calls._attempt",
        old="left - min(left / 2, MAX_MARGIN)",
        new="left",
        caught_by="tests.client.test_calls.Attempts.test_node_without_a_leader_answers_before_time_is_up",
    ),
    Mutant(
        name="a lock that is free is not tried by who does not wait",
        at="Lock._acquire",
        old="not await guarded(trying, session.when_lost())",
        new="trying.cancel() or True",
        caught_by="tests.client.test_lock.Acquiring.test_no_wait_gets_a_free_lock",
    ),
)
