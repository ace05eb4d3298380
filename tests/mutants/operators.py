"""Planted bugs in what operators meet: a node's end, its probes, the command line."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a worker without a thread is waited for when a node stops",
        at="ThreadWorker._end_thread",
        old="self._started",
        new="True",
        caught_by="tests.node.test_worker.Threads.test_thread_that_is_refused",
    ),
    Mutant(
        name="a node that stops itself has no deadline",
        at="NodeService._stopping_itself",
        old="self.running",
        new="False",
        caught_by="tests.embedding.test_node_service.NodeServiceTests.test_stop_of_its_own_is_bounded",
    ),
    Mutant(
        name="probes need a token",
        at="OpenProbes.role_of",
        old="request.uri.partition(...)[0] in PROBES",
        new="False",
        caught_by="tests.http.test_auth.Probes.test_open",
    ),
    Mutant(
        name="a terminal obeys control characters",
        at="_is_obeyed",
        old='("Cc", "Cs", "Zl", "Zp")',
        new='("Cs", "Zl", "Zp")',
        caught_by="tests.cli.test_output.Printable.test_controls",
    ),
    Mutant(
        name="clients take the connections that members need to pass requests on",
        at="KVRequest.gotLength",
        old="self.channel.is_beyond and not self._is_of_a_member()",
        new="False",
        caught_by="tests.http.test_site.Crowded.test_others_are_refused",
    ),
)
