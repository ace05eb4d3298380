"""Planted bugs in what operators and callers are told of a cluster that is unwell."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a node waits for a leader until its client has hung up",
        at="Leadership._patience",
        old="min(asked, longest)",
        new="longest",
        caught_by="tests.http.test_leading.WithoutLeader.test_client_with_less_time",
    ),
    Mutant(
        name="a client gives a node all of its time to wait for a leader",
        at="ClientCalls._attempt",
        old="left - min(left / 2, MAX_MARGIN)",
        new="left",
        caught_by="tests.client.test_attempts.Attempts.test_node_without_a_leader_answers_before_time_is_up",
    ),
    Mutant(
        name="a lock that is free is not tried by who does not wait",
        at="Lock._acquire",
        old="not await guarded(trying, session.when_lost())",
        new="trying.cancel() or True",
        caught_by="tests.client.test_lock.Acquiring.test_no_wait_gets_a_free_lock",
    ),
    Mutant(
        name="a node with data of its own is said to be fit for a cluster",
        at="_stranger",
        old="not view.members and not view.last_index and not view.cluster",
        new="True",
        caught_by="tests.cli.test_broken_clusters.BrokenClusters.test_faults",
    ),
    Mutant(
        name="members of two clusters are taken for those of one",
        at="_clusters",
        old="len(groups) > 1",
        new="False",
        caught_by="tests.cli.test_broken_clusters.BrokenClusters.test_faults",
    ),
    Mutant(
        name="a voter that the leader does not hear counts as well",
        at="tolerance",
        old="address not in leader.silent_peers",
        new="True",
        caught_by="tests.cli.test_broken_clusters.BrokenClusters.test_tolerance",
    ),
)
