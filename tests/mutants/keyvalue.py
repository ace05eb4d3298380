"""Planted bugs in the key-value state machine, its levels and its quotas."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a command is done ahead of the activation of its level",
        at="decode",
        old="version > 2 and (version > VERSION or not level)",
        new="version > VERSION",
        caught_by="tests.kv.test_levels.Activation.test_command_ahead_of_its_activation",
    ),
    Mutant(
        name="a backup takes back the level that is active",
        at="KeyValueFSM._replace",
        old=(
            "State(rows=rows, urls=now.urls, index=index, session_index=index, sessions=sessions, delays=delays, results=now.results, "
            "level=now.level, names=now.names)"
        ),
        new=(
            "State(rows=rows, urls=now.urls, index=index, session_index=index, sessions=sessions, delays=delays, results=now.results, "
            "level=0, names=now.names)"
        ),
        caught_by="tests.kv.test_levels.Activation.test_backup_changes_no_level",
    ),
    Mutant(
        name="a backup of a level that is not active is proposed",
        at="Backups._admit",
        old="state.level > self._fsm.active_level",
        new="False",
        caught_by="tests.http.test_quotas.Quotas.test_backup_of_a_level_that_is_not_active",
    ),
    Mutant(
        name="a transaction is done although it answers too much",
        at="KeyValueFSM._transact",
        old="TransactionAnswer(most_bytes, most_keys, wanted, lenient=not level)",
        new="TransactionAnswer(most_bytes, most_keys, wanted, lenient=True)",
        caught_by="tests.kv.test_bounds.Answers.test_refused_before_anything_changed",
    ),
    Mutant(
        name="bounds hold only where somebody waits for the answer",
        at="TransactionAnswer.is_free",
        old="not self.wanted and (self._lenient or self._bytes is None)",
        new="not self.wanted",
        caught_by="tests.kv.test_bounds.Answers.test_replicas_agree_whoever_waits",
    ),
    Mutant(
        name="keys that are gone in a transaction cost it nothing",
        at="TransactionView._kept",
        old="visit()\nif cleared and key.startswith(cleared): continue",
        new="if cleared and key.startswith(cleared): continue\nvisit()",
        caught_by="tests.kv.test_bounds.Answers.test_keys_that_are_gone_in_it_count",
    ),
    Mutant(
        name="what is written after a tree was deleted is not read in it",
        at="TransactionView.under",
        old="key not in rows or key.startswith(cleared)",
        new="key not in rows",
        caught_by="tests.kv.test_bounds.Trees.test_what_is_written_after_it_is_read",
    ),
    Mutant(
        name="nobody is woken by the deletion of a tree",
        at="KeyValueFSM._clear",
        old="self.watches.keys_changed(prefix, found)",
        new="pass",
        caught_by="tests.kv.test_bounds.Trees.test_who_waits_is_woken",
    ),
    Mutant(
        name="the deletion of a large tree is not known to have been",
        at="KeyIndex._bury",
        old="self._floor = index",
        new="pass",
        caught_by="tests.kv.test_bounds.Trees.test_when_keys_went",
    ),
    Mutant(
        name="a snapshot shows what was written after it was captured",
        at="Capture.items",
        old="row is None or row[MODIFY_INDEX] > index",
        new="row is None",
        caught_by="tests.kv.test_capture.Commands.test_each_way_to_change_records",
    ),
    Mutant(
        name="a snapshot misses what was deleted after it was captured",
        at="KeyValueFSM._clear",
        old="capture.keep_many(keys)",
        new="pass",
        caught_by="tests.kv.test_capture.Commands.test_each_way_to_change_records",
    ),
    Mutant(
        name="what a snapshot needs is kept after it was changed",
        at="KeyValueFSM._put",
        old="""
if self._captures:
    self._keep(key, old)
value, flags = command.value, command.flags
rows[key] = (value, flags, old[CREATE_INDEX], index, old[LOCK_INDEX], old[HOLDER])
""",
        new="""
value, flags = command.value, command.flags
rows[key] = (value, flags, old[CREATE_INDEX], index, old[LOCK_INDEX], old[HOLDER])
if self._captures:
    self._keep(key, old)
""",
        caught_by="tests.kv.test_capture.Commands.test_each_way_to_change_records",
    ),
    Mutant(
        name="a leaf that is split takes half of it from a snapshot",
        at="KeyIndex._split",
        old="leaf.keys = keys[:half]",
        new="del keys[half:]",
        caught_by="tests.kv.test_capture.Commands.test_whatever_follows",
    ),
    Mutant(
        name="a leaf that is split keeps deleted keys for ever in its new half",
        at="KeyIndex._split",
        old="new.gone = sum(...)",
        new="pass",
        caught_by="tests.kv.test_keyindex.ReadViews.test_deleted_key_in_a_leaf_that_is_split_meanwhile",
    ),
    Mutant(
        name="the records of a backup's predecessor go under a snapshot of them",
        at="_freed",
        old="capture.keep_many(last)",
        new="pass",
        caught_by="tests.kv.test_capture.Commands.test_backup_takes_the_place",
    ),
    Mutant(
        name="a restoration keeps records only for the first of two snapshots",
        at="KeyValueFSM._replace",
        old="captures = self._captures",
        new="captures = self._captures[:1]",
        caught_by="tests.kv.test_capture.Commands.test_capture_between_the_turns_of_a_restoration",
    ),
    Mutant(
        name="a restoration forgets which locks a session holds",
        at="KeyValueFSM._replace",
        old="held.setdefault(row[HOLDER], set()).add(key)",
        new="pass",
        caught_by="tests.kv.test_replicas.Restores.test_restored_locks_end_with_their_session",
    ),
    Mutant(
        name="a restoration derives all in the turn in which it takes over",
        at="KeyValueFSM._replace",
        old="self._become(state, _Derived(keys, held, delays_begun, size))",
        new="self._become(state)",
        caught_by="tests.kv.test_replicas.Restores.test_turns_of_a_restoration_are_bounded",
    ),
    Mutant(
        name="a restoration looks for snapshots when it has forgotten them",
        at="KeyValueFSM._replace",
        old="captures = self._captures; self._become(state, _Derived(keys, held, delays_begun, size))",
        new="self._become(state, _Derived(keys, held, delays_begun, size)); captures = self._captures",
        caught_by="tests.kv.test_capture.Commands.test_capture_between_the_turns_of_a_restoration",
    ),
    Mutant(
        name="a session that ends leaves its locks in the change of their leaf",
        at="KeyIndex.changed_each",
        old="self._changes[position] = index",
        new="pass",
        caught_by="tests.kv.test_keyindex.Changes.test_keys_that_changed_together",
    ),
    Mutant(
        name="another command gets the answer to the first under its number",
        at="Results.find",
        old="digest and known.digests.get(sequence, digest) != digest",
        new="False",
        caught_by="tests.kv.test_once.Digests.test_another_command",
    ),
    Mutant(
        name="a once of level 0 is judged by the rules of level 1",
        at="KeyValueFSM._once",
        old='_digest(inner) if command.level else b""',
        new="_digest(inner)",
        caught_by="tests.kv.test_once.Digests.test_old_command_is_not_compared",
    ),
    Mutant(
        name="a repeated creation of a session is another command",
        at="_digest",
        old="isinstance(command, CreateSession)",
        new="False",
        caught_by="tests.http.test_conditions.Once.test_session_is_the_same_through_another_node",
    ),
    Mutant(
        name="a follower judges by what it knows of levels",
        at="Writes.run",
        old="self._raft.state is not RaftState.LEADER",
        new="False",
        caught_by="tests.http.test_transactions.Transactions.test_most_operations_are_counted_where_the_leader_is",
    ),
    Mutant(
        name="a quota is judged when an entry is applied",
        at="KeyValueFSM._put",
        old="rows = self._state.rows",
        new=(
            "rows = self._state.rows\n"
            'if len(rows) > 4: raise ApplicationError("there are too many keys")'
        ),
        caught_by="tests.http.test_quotas.Quotas.test_committed_entries_are_applied_whatever_the_quota",
    ),
    Mutant(
        name="quotas do not count what is under way",
        at="Quotas.begin",
        old="now + coming + added > most",
        new="now + added > most",
        caught_by="tests.http.test_quotas.Quotas.test_what_is_under_way_counts",
    ),
    Mutant(
        name="what has failed is under way for ever",
        at="Writes._ended",
        old="self._quotas.end(added)",
        new="pass",
        caught_by="tests.http.test_quotas.Quotas.test_what_failed_is_not_under_way_any_more",
    ),
    Mutant(
        name="a repetition is refused by a quota",
        at="Writes._begin",
        old="call.once is not None and self._fsm.has_done(*call.once)",
        new="False",
        caught_by="tests.http.test_quotas.Quotas.test_repetition_gets_its_answer",
    ),
    Mutant(
        name="a follower takes a quota's refusal for a node that is not there",
        at="_relay",
        old="answer.status < 500 or answer.status == INSUFFICIENT_STORAGE",
        new="answer.status < 500",
        caught_by="tests.http.test_quotas.Quotas.test_follower_passes_the_refusal_on",
    ),
)
