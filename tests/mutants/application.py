"""Planted bugs in what a node makes of the application's code."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a leader's snapshot is restored whatever application it names",
        at="Snapshots.install",
        old="check_offered(self._fsm, request.application)",
        new="pass",
        caught_by="tests.node.test_snapshot_receiver.Installing.test_snapshot_of_another_name",
    ),
    Mutant(
        name="a leader's snapshot is restored whatever it begins with",
        at="SnapshotReceiver._write",
        old="piece[: HEAD_BYTES - len(self._head)]",
        new="b''",
        caught_by="tests.node.test_snapshot_receiver.Installing.test_snapshot_that_the_state_machine_does_not_know",
    ),
    Mutant(
        name="no server that names no application takes a snapshot of one that does",
        at="check_offered",
        old="own and application and own != application",
        new="own != application",
        caught_by="tests.node.test_snapshot_receiver.Installing.test_snapshot_of_the_same_name_or_of_none",
    ),
    Mutant(
        name="a snapshot counts before the store lists it",
        at="write_snapshot",
        old="meta if discards(store) else _listed(store, meta)",
        new="meta",
        caught_by="tests.node.test_snapshot_writer.Writing.test_store_that_lists_something_else",
    ),
    Mutant(
        name="a snapshot of another size than was written counts",
        at="_listed",
        old="covers != wanted",
        new="covers[:2] != wanted[:2]",
        caught_by="tests.node.test_snapshot_writer.Writing.test_store_that_lists_something_else",
    ),
    Mutant(
        name="a sink that was cancelled is closed",
        at="_LentSink.written",
        old="self._cancelled",
        new="False",
        caught_by="tests.node.test_snapshot_writer.Writing.test_what_is_no_snapshot",
    ),
    Mutant(
        name="persist ends the sink itself",
        at="_LentSink.close",
        old="self.take_back()",
        new="self._sink.close()",
        caught_by="tests.node.test_snapshot_writer.Writing.test_failure_after_persist_has_closed_the_sink",
    ),
    Mutant(
        name="a thread of persist writes to a sink that has ended",
        at="write_snapshot",
        old="lent.take_back()",
        new="pass",
        caught_by="tests.node.test_snapshot_writer.Writing.test_sink_takes_nothing_after_the_end",
    ),
    Mutant(
        name="a coroutine counts as done",
        at="refuse_unfinished",
        old="result is not None and is_unfinished(result)",
        new="False",
        caught_by="tests.node.test_snapshot_writer.Writing.test_what_is_no_snapshot",
    ),
    Mutant(
        name="a coroutine is the response to its command",
        at="is_unfinished",
        old="issubclass(kind, (Awaitable, GeneratorType, AsyncGeneratorType))",
        new="issubclass(kind, Deferred)",
        caught_by="tests.node.test_applier.Order.test_coroutine_is_awaited",
    ),
    Mutant(
        name="a foreign snapshot is restored before the application is looked at",
        at="Raft.start",
        old="check_application(...)\nreturn restore_newest(parts.snapshots, parts.fsm)",
        new="""restored = restore_newest(parts.snapshots, parts.fsm)
check_application(
    parts.fsm, parts.log_store, parts.stable_store, parts.snapshots
)
return restored""",
        caught_by="tests.node.test_ownership.Start.test_another_application",
    ),
    Mutant(
        name="another application's log is recovered",
        at="recover_cluster",
        old="check_application(fsm, log_store, stable_store, snapshots)",
        new="pass",
        caught_by="tests.node.test_cluster_recovery.Recovery.test_another_application",
    ),
    Mutant(
        name="the application of a data directory is not noted",
        at="node/startup:recover",
        old="application and noted_application(stable_store) != application",
        new="False",
        caught_by="tests.node.test_ownership.Start.test_name_is_noted",
    ),
    Mutant(
        name="a start that is refused notes its application",
        at="node/startup:recover",
        old="""noted, warnings = _drop_stale_log(...)
...
...
if application and noted_application(stable_store) != application:
    done(stable_store.set_many, noted_as(application))""",
        new="""if application and noted_application(stable_store) != application:
    done(stable_store.set_many, noted_as(application))
noted, warnings = _drop_stale_log(...)
...
...""",
        caught_by="tests.node.test_startup.Refusing.test_refused_start_leaves_no_name",
    ),
    Mutant(
        name="nobody is told of what is applied in a pause",
        at="Applier._go_on",
        old="self._tell_waiting()",
        new="pass",
        caught_by="tests.node.test_applier.Pausing.test_response_in_a_pause_is_told_of",
    ),
    Mutant(
        name="what waits is forgotten when who is told resumes",
        at="Applier._go_on",
        old="self._run()",
        new="self._continue()",
        caught_by="tests.node.test_applier.Pausing.test_resume_by_who_is_told_in_a_pause",
    ),
    Mutant(
        name="only the beginning of a log tells whose it is",
        at="_foreign",
        old="(*oldest, *newest)",
        new="oldest",
        caught_by="tests.node.test_ownership.Check.test_commands_of_another",
    ),
    Mutant(
        name="an entry is skipped that is not known to be committed",
        at="_check_failed",
        old="not failed.last or not is_same or index > failed.last",
        new="False",
        caught_by="tests.node.test_skipping.SkipEntry.test_entry_that_is_not_known_to_be_committed",
    ),
    Mutant(
        name="an entry is skipped that is not the one where the node stopped",
        at="_check_failed",
        old="index < failed.first",
        new="False",
        caught_by="tests.node.test_skipping.SkipEntry.test_entry_that_was_applied",
    ),
    Mutant(
        name="a note of a failure counts for another log",
        at="_check_failed",
        old="not failed.last or not is_same or index > failed.last",
        new="not failed.last or index > failed.last",
        caught_by="tests.node.test_skipping.SkipEntry.test_log_that_was_replaced",
    ),
    Mutant(
        name="an entry is skipped by its index, whatever it is",
        at="SkippedEntry.names",
        old="self.digest == digest_of(entry)",
        new="True",
        caught_by="tests.node.test_skipping.Around.test_another_entry_in_its_place",
    ),
    Mutant(
        name="the digest of an entry to skip is not compared",
        at="_check_named",
        old="len(digest) < MIN_DIGITS or not real.startswith(digest.lower())",
        new="False",
        caught_by="tests.node.test_skipping.SkipEntry.test_another_entry_than_is_meant",
    ),
    Mutant(
        name="an entry is skipped that a snapshot covers",
        at="check_skip",
        old="index <= covered",
        new="False",
        caught_by="tests.node.test_skipping.SkipEntry.test_snapshot_that_covers_it",
    ),
    Mutant(
        name="a node stops at an entry without noting that it is committed",
        at="Applier._fail_at",
        old="self._failed_at(entries)",
        new="pass",
        caught_by="tests.node.test_skipping.Poison.test_skipped_by_all",
    ),
    Mutant(
        name="a skipped entry stays in the log for others to get",
        at="Shell._compact",
        old="index = max(index, self.skips.newest_up_to(mark.index))",
        new="pass",
        caught_by="tests.node.test_skipping.Poison.test_skipped_by_all",
    ),
    Mutant(
        name="no snapshot follows an entry that was skipped",
        at="Raft._snapshot_if_due",
        old="wanted = bool(shell.skips) and shell.skips.uncovered(covered, applied)",
        new="wanted = False",
        caught_by="tests.node.test_skipping.Poison.test_skipped_by_all",
    ),
    Mutant(
        name="a server is added that gets what others skip",
        at="Skips.check_newcomer",
        old="newest > base_index",
        new="False",
        caught_by="tests.node.test_skipping.Poison.test_newcomer_before_the_snapshot",
    ),
    Mutant(
        name="what a snapshot's sender has skipped is forgotten",
        at="Shell._installed",
        old="if inherited: ...",
        new="pass",
        caught_by="tests.node.test_skipping.Poison.test_record_after_a_restart",
    ),
    Mutant(
        name="a recovery applies what is skipped",
        at="_replay",
        old="skips.around(read_range(log_store, first, last, READ_BYTES))",
        new="read_range(log_store, first, last, READ_BYTES)",
        caught_by="tests.node.test_cluster_recovery.Recovery.test_entry_that_is_skipped",
    ),
    Mutant(
        name="a batch is applied whole again after it has failed",
        at="Applier._apply_runs",
        old="entry.index <= self._singly_up_to",
        new="False",
        caught_by="tests.node.test_skipping.Poison.test_batch",
    ),
    Mutant(
        name="recovery cuts the log without a snapshot",
        at="recover_cluster",
        old="discards(snapshots)",
        new="False",
        caught_by="tests.node.test_cluster_recovery.Recovery.test_store_that_discards",
    ),
    Mutant(
        name="what release raises undoes a snapshot",
        at="node/application:release",
        old="log.failure(..., what=what)",
        new="raise",
        caught_by="tests.node.test_snapshot_writer.LogBehind.test_release_that_fails",
    ),
    Mutant(
        name="a capture that ended the process stays taken",
        at="Snapshots._capture",
        old=(
            "self._taking = False\n"
            'self._host.stop_because("the state machine gave no snapshot", Failure())'
        ),
        new='self._host.stop_because("the state machine gave no snapshot", Failure())',
        caught_by="tests.node.test_application.StateMachines.test_snapshot",
    ),
    Mutant(
        name="what is no exception leaves a turn half done",
        at="Shell._broken",
        old="self._owner.stop_because(reason, failure)",
        new="failure.check(Exception) and self._owner.stop_because(reason, failure)",
        caught_by="tests.node.test_application.Stores.test_turn_that_is_interrupted",
    ),
    Mutant(
        name="whoever proposed in a turn that broke waits for ever",
        at="Shell._propose",
        old=(
            "try:\n    ...\n    self.consensus.propose(...)\n"
            "finally:\n    self._keep_appended(proposals)"
        ),
        new="...\nself.consensus.propose(...)\nself._keep_appended(proposals)",
        caught_by="tests.node.test_application.Stores.test_turn_that_is_interrupted",
    ),
    Mutant(
        name="what is no exception is kept from the reactor",
        at="Raft.stop_because",
        old="self._parts.clock.callLater(0, failure.raiseException)",
        new="pass",
        caught_by="tests.node.test_application.StateMachines.test_apply",
    ),
    Mutant(
        name="an observer that ends the process leaves its node",
        at="Observer._call",
        old='_stop(observation, "an observer")',
        new="pass",
        caught_by="tests.node.test_application.Listeners.test_each_stops_its_node",
    ),
    Mutant(
        name="a shutdown ends where a transport raises",
        at="Shell.stop",
        old="then.callback(self.pending.fail_queued, error)\n...\n...\n...",
        new="...\n...\n...\nthen.callback(self.pending.fail_queued, error)",
        caught_by="tests.node.test_application.Stores.test_transport_that_raises_at_the_end",
    ),
    Mutant(
        name="a batch may hold what is unfinished",
        at="last_awaited",
        old="any(map(is_unfinished, others))",
        new="False",
        caught_by="tests.node.test_applier.Batches.test_what_is_no_sequence_is_the_end",
    ),
    Mutant(
        name="a store that defers is durable at once",
        at="node/application:done",
        old="result is not None",
        new="False",
        caught_by="tests.node.test_application.PlugPoints.test_store_that_defers",
    ),
    Mutant(
        name="apply from another thread is taken",
        at="Raft.apply",
        old="get_ident() != self._thread",
        new="False",
        caught_by="tests.node.test_application.Threads.test_methods_from_another_thread",
    ),
    Mutant(
        name="a timeout of zero is over at once",
        at="Raft._propose",
        old="timeout is not None and (timeout := checked_timeout(timeout))",
        new="timeout is not None",
        caught_by="tests.node.test_raft_apply.Deadlines.test_timeout_of_zero_is_none",
    ),
    Mutant(
        name="a waiter that was cancelled is kept",
        at="EventNotifier.when_leader",
        old="self._waiting.pop(waiter, None)",
        new="None",
        caught_by="tests.node.test_raft_waiting.GivingUp.test_waits_without_end",
    ),
    Mutant(
        name="changes that were given up keep others out",
        at="Changes.add",
        old="self.waiting = deque(left)",
        new="pass",
        caught_by="tests.node.test_raft_waiting.GivingUp.test_membership_changes",
    ),
    Mutant(
        name="the pipeline to a removed member is kept",
        at="Outbox.forget_all_but",
        old="self._drop_pipeline(peer)",
        new="pass",
        caught_by="tests.node.test_raft_membership.Removing.test_nothing_is_kept_for_who_was_removed",
    ),
    Mutant(
        name="nodes in one process share their entries",
        at="transport/inmem:_copied",
        old="tuple(map(_copied_entry, request.entries))",
        new="tuple(request.entries)",
        caught_by="tests.transport.test_inmem.Routes.test_each_node_has_its_own_entries",
    ),
    Mutant(
        name="who is told that an index is applied may begin a second loop",
        at="Applier._run",
        old="self._busy or self._applying or self._stopped",
        new="self._busy or self._stopped",
        caught_by="tests.node.test_applier.Reentry.test_resume_by_who_is_told",
    ),
    Mutant(
        name="the state machine is left alone while somebody is told",
        at="Applier._apply",
        old="try:\n    if self._waiting: ...\nfinally: ...",
        new="self._applying = False\nif self._waiting:\n    self._tell_waiting()",
        caught_by="tests.node.test_applier.Reentry.test_no_command_is_applied_twice",
    ),
)
