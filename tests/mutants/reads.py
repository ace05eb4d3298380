"""Planted bugs in reads of many keys, blocking queries, ends of sessions and HTTP."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a query begins to wait a turn after the index was looked at",
        at="Waits.park",
        old="self._join(wait)",
        new="self._clock.callLater(0, self._join, wait)",
        caught_by="tests.http.test_waits.Waits.test_session_wakes",
    ),
    Mutant(
        name="a query that was woken too early waits no more",
        at="Waits._look_at",
        old="self._join(wait)",
        new="pass",
        caught_by="tests.http.test_waits.Waits.test_follower_that_lags_waits_on",
    ),
    Mutant(
        name="the index of a prefix goes back for a client",
        at="Keys._listed",
        old="max(listing.changed_at, min(call.known_index, listing.now))",
        new="listing.changed_at",
        caught_by="tests.http.test_waits.Waits.test_index_of_a_prefix_never_goes_back",
    ),
    Mutant(
        name="a client's index is believed before it is reached",
        at="Keys._listed",
        old="min(call.known_index, listing.now)",
        new="call.known_index",
        caught_by="tests.http.test_waits.Waits.test_index_of_a_prefix_never_goes_back",
    ),
    Mutant(
        name="the last change under a prefix misses what was written over",
        at="KeyIndex.changed_under",
        old="self._catch_up()",
        new="pass",
        caught_by="tests.kv.test_keyindex.Changes.test_record_that_was_written_over",
    ),
    Mutant(
        name="what was deleted before a restart never changed",
        at="KeyIndex._changed_in",
        old="max(forgotten, max(modified, default=0))",
        new="max(modified, default=0)",
        caught_by="tests.kv.test_keyindex.Changes.test_filled_index_knows_of_no_earlier_deletion",
    ),
    Mutant(
        name="a list shows what was written after it began",
        at="KeyIndex.changed",
        old="self._keep(key, old, index)",
        new="pass",
        caught_by="tests.kv.test_keyindex.ReadViews.test_changes_meanwhile",
    ),
    Mutant(
        name="a list goes on when all under a prefix was deleted",
        at="KeyIndex.removed_many",
        old="self.end_views()",
        new="pass",
        caught_by="tests.kv.test_keyindex.ReadViews.test_all_deleted_at_once",
    ),
    Mutant(
        name="a long list holds up whoever comes after it",
        at="Slices._first_slice",
        old="job.close()",
        new="pass",
        caught_by="tests.http.test_slices.Order.test_one_long_work_is_open_at_a_time",
    ),
    Mutant(
        name="all who share a work are let go of with the last of them",
        at="Slices._slice",
        old="((first, *others), job.waiters) = (job.waiters, [])",
        new="(first, *others) = job.waiters",
        caught_by="tests.http.test_slices.Sharing.test_who_was_told_is_let_go_of",
    ),
    Mutant(
        name="a transaction that reads sees later values of single keys",
        at="kv/operations:read",
        old="State(rows, {}, state.index)",
        new="state",
        caught_by="tests.kv.test_bounds.Answers.test_read_shows_one_moment",
    ),
    Mutant(
        name="a transaction that reads keeps its read views open",
        at="kv/operations:read",
        old="stack.enter_context(closing(keys.read_view(o.key, state.index)))",
        new="keys.read_view(o.key, state.index)",
        caught_by="tests.kv.test_bounds.Answers.test_read_leaves_nothing_behind",
    ),
    Mutant(
        name="a list that has begun is shared with whoever asks later",
        at="Slices._first_slice",
        old="del self._shared[job.key]",
        new="pass",
        caught_by="tests.http.test_slices.Sharing.test_work_that_has_begun_is_not_shared",
    ),
    Mutant(
        name="a session that is about to end is renewed",
        at="Expiry._end_due",
        old="self._ending.update(sessions)",
        new="pass",
        caught_by="tests.http.test_sessions.Expiry.test_renewal_never_succeeds_for_what_is_about_to_end",
    ),
    Mutant(
        name="an end that was not committed is forgotten",
        at="Expiry._sessions_ended",
        old="self._try_again(id)",
        new="pass",
        caught_by="tests.http.test_sessions.Expiry.test_end_that_fails_is_decided_anew",
    ),
    Mutant(
        name="a leader counts the time in which it stood still",
        at="Expiry._look",
        old="late > STALL",
        new="False",
        caught_by="tests.http.test_sessions.Expiry.test_leader_that_was_stopped_forgives_that_while",
    ),
    Mutant(
        name="a page of another port of this machine is let in",
        at="Origins._is_own",
        old='served == name + (port or "").removesuffix(_PORTS[scheme])',
        new="served.startswith(name)",
        caught_by="tests.http.test_origins.Pages.test_pages_from_elsewhere",
    ),
)
