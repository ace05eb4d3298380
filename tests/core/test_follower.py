"""A follower and the entries it is sent."""

from __future__ import annotations

from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    answer_of,
    append,
    entries_of,
    log_of,
    server,
    sync,
    terms_of,
)
from txraft.core.candidate import PreCandidate
from txraft.core.configuration import Configuration
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
)
from txraft.core.ready import Ready, Refusal, SnapshotMark
from txraft.core.role import BaseRole

LEADER_LOG = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


class Figure7(SynchronousTestCase):
    """The followers (a) to (f) that a leader of term 8 may meet.

    Source: Raft paper, figure 7.
    """

    cases: ClassVar = {
        "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
        "b": (1, 1, 1, 4),
        "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        "e": (1, 1, 1, 4, 4, 4, 4),
        "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    }

    def test_append_entries_with_the_probe_of_a_new_leader(self) -> None:
        """Only who has (10, 6) takes what follows on it; nobody is truncated."""
        taken = {}
        for name, terms in self.cases.items():
            follower = server(log=log_of(*terms), term=7)
            follower.request(append(8, prev=(10, 6)), "reply")
            answer = answer_of(sync(follower))
            assert isinstance(answer, AppendEntriesResponse)
            taken[name] = (answer.success, answer.no_retry_backoff)
            self.assertEqual(terms_of(follower), list(terms), name)

        expected = {n: (n in "cd", n not in "cd") for n in self.cases}
        self.assertEqual(taken, expected)

    def test_append_entries_from_where_the_logs_agree(self) -> None:
        """With what follows (3, 1), each follower ends with the leader's log."""
        for name, terms in self.cases.items():
            follower = server(log=log_of(*terms), term=7)

            follower.request(
                append(8, (3, 1), (*LEADER_LOG[3:], 8), commit=11), "reply"
            )

            self.assertEqual(terms_of(follower), [*LEADER_LOG, 8], name)
            self.assertEqual(follower.commit_index, 11)

    def test_append_entries_truncates_from_the_first_conflict_only(self) -> None:
        """What agrees is neither cut nor written again."""
        cuts = {}
        for name, terms in self.cases.items():
            follower = server(log=log_of(*terms), term=7)
            follower.request(append(8, (3, 1), (*LEADER_LOG[3:], 8)), "reply")
            ready = follower.ready()
            cuts[name] = (ready.truncate_from, [e.index for e in ready.append][:1])

        expected = {
            "a": (None, [10]),
            "b": (None, [5]),
            "c": (11, [11]),
            "d": (11, [11]),
            "e": (6, [6]),
            "f": (4, [4]),
        }
        self.assertEqual(cuts, expected)


class AppendEntries(SynchronousTestCase):
    """`AppendEntries` at a follower with the log 1 1 2 2 and commit index 2.

    Source: Raft dissertation §3.5, figure 3.1.
    """

    def setUp(self) -> None:
        self.follower = server(log=log_of(1, 1, 2, 2), term=2)
        self.follower.request(append(2, (2, 1), commit=2), "first")
        sync(self.follower)

    def ask(self, request: AppendEntriesRequest) -> tuple[Ready, object]:
        """Deliver *request* and return what follows."""
        self.follower.request(request, "reply")
        ready = self.follower.ready()
        return ready, answer_of(ready)

    def test_append_entries_duplicate_changes_nothing(self) -> None:
        """Entries that are here already are neither cut nor written."""
        ready, answer = self.ask(append(2, (2, 1), (2, 2), commit=2))

        self.assertEqual((ready.truncate_from, ready.append), (None, []))
        self.assertEqual(answer, AppendEntriesResponse(2, 4, True))

    def test_append_entries_late_duplicate_keeps_what_came_later(self) -> None:
        """An old request that comes again takes nothing away."""
        ready, _ = self.ask(append(2, (0, 0), (1,), commit=2))

        self.assertEqual(ready.truncate_from, None)
        self.assertEqual(terms_of(self.follower), [1, 1, 2, 2])
        self.assertEqual(self.follower.commit_index, 2)

    def test_append_entries_partial_overlap_appends_the_rest(self) -> None:
        """Of a request that is known in part only the rest is stored."""
        ready, _ = self.ask(append(2, (3, 2), (2, 2, 2)))

        self.assertEqual([e.index for e in ready.append], [5, 6])
        self.assertEqual(ready.truncate_from, None)

    def test_append_entries_past_the_end_refused(self) -> None:
        """A gap is refused with a hint, and may be retried at once."""
        ready, answer = self.ask(append(2, (9, 2), (2,)))

        self.assertEqual(answer, AppendEntriesResponse(2, 4, False, True))
        self.assertEqual([to for to, _ in ready.send], ["reply"])
        self.assertEqual(terms_of(self.follower), [1, 1, 2, 2])

    def test_append_entries_of_an_older_term_refused(self) -> None:
        """A deposed leader learns the term and changes nothing."""
        _, answer = self.ask(append(1, (4, 2), (1,), commit=4, sender="old"))

        self.assertEqual(answer, AppendEntriesResponse(2, 4, False))
        self.assertEqual(self.follower.leader, "b")
        self.assertEqual(self.follower.commit_index, 2)

    def test_append_entries_of_a_newer_term_adopts_it(self) -> None:
        """The newer term is in the answer, and its vote is free."""
        ready, answer = self.ask(append(7, (4, 2), sender="c"))

        self.assertEqual(answer, AppendEntriesResponse(7, 4, True))
        assert ready.hard_state is not None
        self.assertEqual((ready.hard_state.term, ready.hard_state.voted_for), (7, None))
        self.assertEqual(self.follower.leader, "c")

    def test_append_entries_commit_is_capped_at_what_the_request_proves(self) -> None:
        """A stale tail is not committed by a leader's high commit index."""
        self.ask(append(3, (2, 1), commit=9))
        self.assertEqual(self.follower.commit_index, 2)

        self.follower.ready()
        self.ask(append(3, (2, 1), (2,), commit=9))
        self.assertEqual(self.follower.commit_index, 3)

    def test_append_entries_commit_never_falls(self) -> None:
        """A lower commit index in a late request is ignored."""
        self.ask(append(2, (4, 2), commit=4))
        self.follower.ready()
        self.ask(append(2, (4, 2), commit=1))

        self.assertEqual(self.follower.commit_index, 4)

    def test_append_entries_denying_the_committed_is_a_contradiction(self) -> None:
        """A leader without what is committed here is of another cluster."""
        for request in (append(3, (2, 3), (3,)), append(3, (1, 1), (3,))):
            ready, answer = self.ask(request)

            self.assertIsInstance(answer, Refusal)
            self.assertEqual(ready.contradiction, "b")
            self.assertEqual(terms_of(self.follower), [1, 1, 2, 2])

    def test_append_entries_malformed_is_refused_whole(self) -> None:
        """A gap, a falling term, a term to come or none at all is never appended."""
        gap = entries_of(5, 2, 2)
        gap[1].index = 9
        malformed = [
            AppendEntriesRequest(2, "b", 4, 2, gap),
            append(2, (4, 2), (1,)),
            append(2, (4, 2), (3,)),
            append(2, (0, 0), (0,)),
        ]
        for request in malformed:
            ready, answer = self.ask(request)

            self.assertIsInstance(answer, Refusal)
            self.assertEqual((ready.append, ready.truncate_from), ([], None))

    def test_append_entries_success_waits_for_the_write(self) -> None:
        """Also when all was in the log: that is not yet on disk."""
        for request in (append(2, (4, 2), (2,)), append(2, (4, 2), (2,))):
            ready, _ = self.ask(request)

            self.assertEqual(ready.send, [])
            self.assertEqual(ready.write_number, 1)

    def test_append_entries_while_installing_refused(self) -> None:
        """Entries wait until the snapshot has taken its place; heartbeats say so."""
        self.follower.installing = True

        _, answer = self.ask(append(2, (4, 2), (2,)))
        self.assertEqual(answer, AppendEntriesResponse(2, 4, False))

        _, answer = self.ask(AppendEntriesRequest(2, "b"))
        self.assertEqual(
            answer, AppendEntriesResponse(2, 4, True, no_retry_backoff=True)
        )


class CompactedPrefix(SynchronousTestCase):
    """`AppendEntries` at a follower whose log starts after a snapshot at (5, 2)."""

    def setUp(self) -> None:
        members = Configuration.of_voters("abc")
        self.follower = server(
            log=log_of(2, 3, base=(5, 2)),
            term=3,
            snapshot=SnapshotMark(5, 2, members, 1),
        )

    def ask(self, request: AppendEntriesRequest) -> tuple[Ready, object]:
        """Deliver *request* and return what follows."""
        self.follower.request(request, "reply")
        ready = self.follower.ready()
        return ready, answer_of(ready)

    def test_append_entries_at_the_edge(self) -> None:
        """The last compacted entry is compared as any other."""
        _, answer = self.ask(append(3, (5, 2), (2,)))
        self.assertEqual(answer, AppendEntriesResponse(3, 7, True))

        _, answer = self.ask(append(3, (5, 1), (2,)))
        self.assertIsInstance(answer, Refusal)

    def test_append_entries_before_the_edge_skips_the_covered(self) -> None:
        """An early request that comes late does not write before the log."""
        ready, answer = self.ask(append(3, (0, 0), (1, 1, 1, 1, 2, 2, 3, 3), commit=8))

        self.assertEqual([e.index for e in ready.append], [8])
        self.assertEqual(ready.truncate_from, None)
        self.assertEqual(answer, AppendEntriesResponse(3, 7, True))
        self.assertEqual(self.follower.commit_index, 8)

    def test_append_entries_wholly_before_the_edge(self) -> None:
        """It is known, so it succeeds and changes nothing."""
        ready, answer = self.ask(append(3, (1, 1), (1, 1), commit=9))

        self.assertEqual((ready.append, ready.truncate_from), ([], None))
        self.assertEqual(answer, AppendEntriesResponse(3, 7, True))
        self.assertEqual(self.follower.commit_index, 5)

    def test_append_entries_denying_the_last_compacted_entry(self) -> None:
        """A request that covers the edge must agree with it, even with a later log."""
        ready, answer = self.ask(append(3, (3, 1), (1, 1, 1)))

        self.assertIsInstance(answer, Refusal)
        self.assertEqual(ready.contradiction, "b")
        self.assertEqual(terms_of(self.follower), [2, 3])


class Truncation(SynchronousTestCase):
    """What else goes when entries go."""

    def test_truncation_rolls_the_membership_back(self) -> None:
        """A configuration that another leader denies is in force no more.

        Source: Raft dissertation §4.1.
        """
        follower = server(log=log_of(1), term=1)
        four = Configuration.of_voters("abcd")
        entry = Entry(2, 1, LogType.CONFIGURATION, configuration=four)
        follower.request(AppendEntriesRequest(1, "b", 1, 1, [entry]), "reply")
        self.assertEqual(follower.configuration, four)

        follower.request(append(2, (1, 1), (2,), sender="c"), "reply")

        self.assertEqual(follower.configuration, Configuration.of_voters("abc"))

    def test_truncation_in_one_batch_leaves_no_stale_entry(self) -> None:
        """Of entries that came and went before a write, none is written."""
        follower = server(log=log_of(1), term=1)
        follower.request(append(1, (1, 1), (1, 1, 1)), "one")
        follower.request(append(2, (2, 1), (2,), sender="c"), "two")

        ready = follower.ready()

        self.assertEqual([(e.index, e.term) for e in ready.append], [(2, 1), (3, 2)])
        self.assertEqual(ready.truncate_from, 3)

    def test_truncation_keeps_the_lowest_cut_of_a_batch(self) -> None:
        """Two cuts in one write become the deeper one."""
        follower = server(log=log_of(1, 1, 1, 1), term=1)
        follower.request(append(2, (1, 1), (2, 2)), "one")
        follower.request(append(3, (2, 2), (3,), sender="c"), "two")

        ready = follower.ready()

        self.assertEqual(ready.truncate_from, 2)
        self.assertEqual([(e.index, e.term) for e in ready.append], [(2, 2), (3, 3)])


class Heartbeats(SynchronousTestCase):
    """The request without anything in it."""

    def test_heartbeat_is_answered_at_once_when_the_term_is_durable(self) -> None:
        """Nothing it says waits for the disk."""
        follower = server(term=2)

        follower.request(AppendEntriesRequest(2, "b"), "reply")
        ready = follower.ready()

        self.assertEqual(ready.send, [("reply", AppendEntriesResponse(2, 0, True))])

    def test_heartbeat_of_a_newer_term_is_answered_after_the_write(self) -> None:
        """Or this server could forget the term whose leader it has confirmed."""
        follower = server(term=1)

        follower.request(AppendEntriesRequest(2, "b"), "reply")
        ready = follower.ready()

        self.assertEqual(ready.send, [])
        self.assertEqual(len(ready.after_sync), 1)

    def test_heartbeat_ends_a_campaign(self) -> None:
        """A candidate that meets the leader of its term follows it.

        Source: Raft dissertation §3.4.
        """
        campaigner = server(term=1)
        campaigner.become_candidate()

        campaigner.request(AppendEntriesRequest(2, "b"), "reply")

        self.assertEqual(campaigner.leader, "b")
        self.assertEqual(campaigner.voted_for, "a")

    def test_heartbeat_to_the_leader_of_that_term_refused(self) -> None:
        """Two leaders in a term cannot be; neither obeys the other."""
        leading = server(voters="a", term=1)
        leading.become_candidate()
        sync(leading)
        self.assertTrue(leading.is_leader)

        leading.request(AppendEntriesRequest(2, "b"), "reply")

        self.assertTrue(leading.is_leader)
        self.assertIsInstance(answer_of(leading.ready()), Refusal)


class Waiting(SynchronousTestCase):
    """When a follower campaigns.  Source: Raft dissertation §3.4."""

    def role_after(self, consensus: object, ticks: int) -> type[BaseRole]:
        """Let *ticks* pass one by one."""
        for _ in range(ticks):
            consensus.tick()  # type: ignore[attr-defined]
        return type(consensus.role)  # type: ignore[attr-defined]

    def test_tick_campaigns_between_once_and_twice_the_timeout(self) -> None:
        """The wait is random, so that votes are seldom split."""
        waits = []
        for seed in range(60):
            follower = server(seed=seed)
            ticks = 0
            while not isinstance(follower.role, PreCandidate):
                follower.tick()
                ticks += 1
            waits.append(ticks)

        self.assertEqual((min(waits), max(waits)), (10, 19))

    def test_tick_after_a_stall_first_reads_the_sockets(self) -> None:
        """However long a stall was, it alone starts no election."""
        follower = server(term=1)

        follower.tick(1000)

        self.assertNotIsInstance(follower.role, PreCandidate)

    def test_tick_without_vote_never_campaigns(self) -> None:
        """A server that is not a voter, or knows no membership, only waits."""
        for configuration in (Configuration(), Configuration.of_voters("xyz")):
            outsider = server(configuration=configuration)
            self.role_after(outsider, 100)

            self.assertEqual((outsider.term, outsider.ready().send), (0, []))

    def test_tick_rejected_entries_still_show_a_leader(self) -> None:
        """A follower that lags behind does not disturb the leader."""
        follower = server(term=1)
        for _ in range(30):
            self.role_after(follower, 2)
            self.assertNotIsInstance(follower.role, PreCandidate)
            follower.request(append(1, (99, 1)), "reply")

        self.assertEqual(follower.leader, "b")

    def test_tick_waits_anew_whenever_the_leader_is_heard(self) -> None:
        """Heartbeats keep a follower one, for as long as they come."""
        follower = server(term=1)
        for _ in range(30):
            self.role_after(follower, 9)
            self.assertNotIsInstance(follower.role, PreCandidate)
            follower.request(AppendEntriesRequest(1, "b"), "reply")

        self.assertIs(self.role_after(follower, 20), PreCandidate)

    def test_disconnected_from_the_leader_campaigns_soon(self) -> None:
        """A lost link is not waited out, and asks for pre-votes first."""
        follower = server(term=1)
        follower.request(AppendEntriesRequest(1, "b"), "reply")
        follower.disconnected("b")
        follower.ready()

        role = self.role_after(follower, 2)

        self.assertIs(role, PreCandidate)
        ready = follower.ready()
        self.assertEqual({type(m) for _, m in ready.send}, {RequestPreVoteRequest})

    def test_disconnected_from_another_peer_means_nothing(self) -> None:
        """Only the leader's link tells of the leader."""
        follower = server(term=1)
        follower.request(AppendEntriesRequest(1, "b"), "reply")

        follower.disconnected("c")

        self.assertEqual(follower.leader, "b")

    def test_installing_does_not_campaign(self) -> None:
        """A server between two states has no log to be judged by."""
        follower = server(term=1)
        follower.installing = True

        self.role_after(follower, 50)

        self.assertEqual(follower.ready().send, [])
