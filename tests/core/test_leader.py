"""A leader commits, sends heartbeats, and steps down."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    append,
    command,
    leader,
    log_of,
    progress,
    refuse,
    request_vote,
    sent,
    server,
    settle,
    settled_leader,
    sync,
    terms_of,
)
from txraft.core.consensus import Consensus
from txraft.core.leader import Leader, Resignation
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import Heartbeat, Refusal, Replicate


class Opening(SynchronousTestCase):
    """The first moments of a leadership.  Source: Raft dissertation §3.4, §6.4."""

    def test_open_probes_with_the_opening_entry(self) -> None:
        """All others hear at once, and get what follows on the leader's last entry."""
        leading = leader(3, log=log_of(1, 1))

        ready = leading.ready()

        expected = Replicate(3, 2, 1, 3, 0, sent=0, stream=1)
        self.assertEqual(sent(ready, Replicate, "b"), [expected])
        self.assertEqual(len(sent(ready, Heartbeat)), 2)
        self.assertEqual([(e.index, e.term) for e in ready.append], [(3, 3)])

    def test_open_as_version_0_lists_the_members(self) -> None:
        """The opening entry repeats the membership in force."""
        leading = leader(3, opening_entry_lists_members=True)

        entry = leading.ready().append[0]

        self.assertEqual(entry.configuration, leading.configuration)


class Commitment(SynchronousTestCase):
    """Which entries are committed.  Source: Raft dissertation §3.6.2."""

    def test_commit_needs_a_quorum_of_durable_copies(self) -> None:
        """The leader's own copy counts once synced; one follower's is no quorum."""
        leading = leader(1)
        ready = leading.ready()
        accept(leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(leading.commit_index, 0)

        leading.synced(ready.write_number)

        self.assertEqual(leading.commit_index, 1)

    def test_commit_without_the_leaders_own_copy(self) -> None:
        """A quorum of followers commits while the leader's disk is slow.

        Source: §10.2.1.
        """
        leading = leader(1)
        ready = leading.ready()

        for follower in "bc":
            accept(leading, follower, sent(ready, Replicate, follower)[0])

        self.assertEqual(leading.commit_index, 1)

    def test_commit_only_what_was_synced_by_number(self) -> None:
        """Of two writes only the first is durable; only its entries count."""
        alone = settled_leader(voters="a")
        alone.propose([command()])
        first = alone.ready()
        alone.propose([command()])
        alone.ready()

        alone.synced(first.write_number)

        self.assertEqual(alone.commit_index, 2)

    def test_commit_counts_a_follower_once(self) -> None:
        """Two answers of one follower are one copy."""
        leading = leader(1, voters="abcde")
        ready = sync(leading)
        for _ in range(3):
            accept(leading, "b", sent(ready, Replicate, "b")[0])

        self.assertEqual(leading.commit_index, 0)

    def test_commit_needs_half_and_one_of_four(self) -> None:
        """An even number of voters needs more than half."""
        leading = leader(1, voters="abcd")
        ready = sync(leading)

        accept(leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(leading.commit_index, 0)
        accept(leading, "c", sent(ready, Replicate, "c")[0])
        self.assertEqual(leading.commit_index, 1)

    def test_commit_not_by_counting_entries_of_earlier_terms(self) -> None:
        """Figure 8 (c): an old entry on a quorum may still be overwritten.

        Source: Raft paper, figure 8.
        """
        leading = leader(4, log=log_of(1, 2), voters="abcde", max_append_entries=1)
        ready = sync(leading)
        for follower in "bc":
            probe = sent(ready, Replicate, follower)[0]
            refuse(leading, follower, probe, last_log=1)
        ready = leading.ready()

        for follower in "bc":
            resent = sent(ready, Replicate, follower)[0]
            self.assertEqual((resent.prev_index, resent.last), (1, 2))
            accept(leading, follower, resent)

        self.assertEqual(progress(leading, "b").match, 2)
        self.assertEqual(leading.commit_index, 0)

    def test_commit_of_an_own_entry_commits_all_before_it(self) -> None:
        """Figure 8 (e): what precedes an own committed entry is safe."""
        leading = leader(4, log=log_of(1, 2), voters="abcde")
        ready = sync(leading)

        for follower in "bc":
            accept(leading, follower, sent(ready, Replicate, follower)[0])

        self.assertEqual(leading.commit_index, 3)

    def test_commit_figure_8_as_it_goes_wrong(self) -> None:
        """(c) to (d): after the old entry reached three of five, another term wins.

        Source: Raft paper, figure 8.
        """
        third = server("c", log=log_of(1, 2), term=4, voters="abcde")

        third.request(request_vote(5, (2, 3), sender="e"), "vote")
        third.request(append(5, (1, 1), (3,), sender="e"), "reply")

        self.assertEqual(terms_of(third), [1, 3])

    def test_commit_is_told_to_followers(self) -> None:
        """A follower learns the commit index without waiting for new entries."""
        leading = leader(1)
        ready = sync(leading)
        accept(leading, "b", sent(ready, Replicate, "b")[0])
        leading.tick()

        news = sent(leading.ready(), Replicate, "b")

        self.assertEqual([(m.prev_index, m.last, m.commit) for m in news], [(1, 1, 1)])

    def test_commit_sent_is_never_above_what_is_sent(self) -> None:
        """Some peers do not cap it, and would commit a stale tail."""
        leading = settled_leader(max_append_entries=2)
        settle(leading, "c")
        leading.propose([command() for _ in range(6)])
        settle(leading, "c")
        self.assertEqual(leading.commit_index, 7)
        leading.unreachable(
            "c", Replicate(1, 1, 1, 3, 1, 0, progress(leading, "c").stream)
        )
        leading.tick(2)

        message = sent(leading.ready(), Replicate, "c")[0]

        self.assertEqual((message.last, message.commit), (3, 3))

    def test_match_never_moves_on_an_empty_request(self) -> None:
        """An empty AppendEntries proves that logs agree, not what is on disk."""
        leading = leader(1)
        sync(leading)
        stream = progress(leading, "b").stream

        empty = Replicate(1, 1, 1, 1, 0, 0, stream)
        accept(leading, "b", empty)

        self.assertEqual(progress(leading, "b").match, 0)
        self.assertEqual(leading.commit_index, 0)

    def test_match_follows_the_request_not_the_answers_last_index(self) -> None:
        """A follower's longer, unconfirmed tail counts for nothing."""
        leading = leader(1)
        ready = sync(leading)
        leading.propose([command(), command()])
        sync(leading)

        request = sent(ready, Replicate, "b")[0]
        leading.response("b", request, AppendEntriesResponse(1, 99, True))

        self.assertEqual(progress(leading, "b").match, 1)
        self.assertEqual(leading.commit_index, 1)


class Heartbeats(SynchronousTestCase):
    """Saying that there is a leader."""

    def test_heartbeat_one_at_a_time(self) -> None:
        """A second one is not sent while the first is unanswered."""
        leading = leader(1, check_quorum=False)
        count = 0
        for _ in range(20):
            count += len(sent(sync(leading), Heartbeat, "b"))
            leading.tick()

        self.assertEqual(count, 1)

    def test_heartbeat_at_each_interval(self) -> None:
        """Answered ones follow each other every interval."""
        leading = settled_leader()
        times = []
        for _ in range(8):
            leading.tick()
            for heartbeat in sent(sync(leading), Heartbeat, "b"):
                times.append(leading.now)
                accept(leading, "b", heartbeat)

        self.assertEqual({b - a for a, b in pairwise(times)}, {2})

    def test_heartbeat_lost_is_repeated_once_at_once(self) -> None:
        """A second one in a row makes room for the next when that is due."""
        leading = leader(1)
        lost = sent(sync(leading), Heartbeat, "b")[0]

        leading.unreachable("b", lost)
        again = sent(leading.ready(), Heartbeat, "b")[0]
        leading.unreachable("b", again)
        self.assertEqual(sent(leading.ready(), Heartbeat, "b"), [])
        leading.tick(2)

        self.assertEqual(len(sent(leading.ready(), Heartbeat, "b")), 1)

    def test_connection_lost_has_a_heartbeat_leave_at_once(self) -> None:
        """Its follower may have taken that for the end of the leader."""
        leading = settled_leader()
        leading.ready()

        leading.connection_lost("b")

        [heartbeat] = sent(leading.ready(), Heartbeat)
        leading.connection_lost("b")
        self.assertEqual(sent(leading.ready(), Heartbeat), [])
        leading.unreachable("b", heartbeat)
        [again] = sent(leading.ready(), Heartbeat)
        leading.unreachable("b", again)
        leading.connection_lost("b")
        leading.connection_lost("stranger")
        self.assertEqual(sent(leading.ready(), Heartbeat), [])

    def test_heartbeat_answer_with_a_newer_term_deposes(self) -> None:
        """A newer term in any answer ends the leadership."""
        leading = leader(1)
        heartbeat = sent(sync(leading), Heartbeat, "b")[0]

        leading.response("b", heartbeat, AppendEntriesResponse(4, 0, False))

        self.assertEqual((leading.is_leader, leading.term), (False, 4))

    def test_heartbeat_answer_is_no_match(self) -> None:
        """It says that the term is current and nothing else."""
        leading = leader(1)
        for heartbeat in sent(sync(leading), Heartbeat, "b"):
            leading.response("b", heartbeat, AppendEntriesResponse(1, 99, True))

        self.assertEqual(progress(leading, "b").match, 0)


class Lease(SynchronousTestCase):
    """A leader that reaches no quorum steps down.  Source: §6.2."""

    def test_tick_without_answers_steps_down(self) -> None:
        """After the lease, with no answer from a quorum."""
        leading = leader(1)
        for _ in range(8):
            leading.tick()
        self.assertTrue(leading.is_leader)
        leading.tick()
        self.assertEqual((leading.is_leader, leading.leader), (False, None))

    def test_tick_one_of_two_followers_is_enough(self) -> None:
        """Itself and one follower are a quorum of three."""
        leading = settled_leader()
        for _ in range(40):
            leading.tick()
            for heartbeat in sent(sync(leading), Heartbeat, "b"):
                accept(leading, "b", heartbeat)

        self.assertTrue(leading.is_leader)

    def test_lease_counts_from_when_the_request_was_sent(self) -> None:
        """An answer that took long proves only an early moment."""
        leading = leader(1)
        heartbeat = sent(sync(leading), Heartbeat, "b")[0]
        leading.tick(7)
        accept(leading, "b", heartbeat)

        leading.tick()
        leading.tick()

        self.assertFalse(leading.is_leader)

    def test_lease_needs_voters(self) -> None:
        """Answers of servers that do not vote keep nobody in office."""
        leading = leader(1, voters="abcde")
        for _ in range(9):
            leading.tick()
            for heartbeat in sent(sync(leading), Heartbeat, "b"):
                accept(leading, "b", heartbeat)

        self.assertFalse(leading.is_leader)

    def test_tick_with_a_stalled_disk_steps_down(self) -> None:
        """Heartbeats alone would hide that nothing can be written any more."""
        leading = settled_leader()
        leading.propose([command()])
        leading.ready()
        role = leading.role
        assert isinstance(role, Leader)
        for _ in range(11):
            leading.tick()
            for follower in "bc":
                for heartbeat in sent(leading.ready(), Heartbeat, follower):
                    accept(leading, follower, heartbeat)

        self.assertFalse(leading.is_leader)
        self.assertEqual(role.resignation, Resignation(1, 11, 1))

    def test_tick_alone_never_steps_down(self) -> None:
        """The only voter has no one to hear from."""
        leading = settled_leader(voters="a")

        leading.tick(1000)

        self.assertTrue(leading.is_leader)


class Doubt(SynchronousTestCase):
    """A leader that was held up itself tries one round.  Source: §6.2."""

    def stalled(self, ticks: int = 12) -> Consensus:
        leading = settled_leader()
        leading.ready()
        leading.tick(ticks)
        return leading

    def answers(self, leading: Consensus, *peers: str) -> None:
        ready = sync(leading)
        for peer in peers:
            for heartbeat in sent(ready, Heartbeat, peer):
                accept(leading, peer, heartbeat)

    def test_leads_on_when_a_quorum_answers(self) -> None:
        """All followers are there; nothing was their fault."""
        leading = self.stalled()
        self.assertFalse(leading.role.hears_leader)

        self.answers(leading, "b")
        leading.tick()

        self.assertTrue(leading.is_leader)
        self.assertTrue(leading.role.hears_leader)

    def test_resigns_after_a_heartbeat_timeout(self) -> None:
        """For so long it waits, and no longer."""
        leading = self.stalled()
        role = leading.role
        assert isinstance(role, Leader)
        for _ in range(9):
            leading.tick()
            leading.ready()
        self.assertTrue(leading.is_leader)

        leading.tick()

        self.assertFalse(leading.is_leader)
        self.assertEqual(role.resignation, Resignation(22, 0, 12))

    def test_another_stall_does_not_begin_the_time_anew(self) -> None:
        """Once for each stall, and no quorum was heard in between."""
        leading = self.stalled()

        leading.tick(12)

        self.assertFalse(leading.is_leader)

    def test_a_second_stall_does_not_begin_the_time_anew(self) -> None:
        """Not even when an old answer has made the silence before it short."""
        leading = settled_leader()
        leading.tick(2)
        early = sent(sync(leading), Heartbeat, "b")[0]
        for _ in range(4):
            leading.tick()
        leading.tick(3)
        self.assertFalse(leading.role.hears_leader)
        accept(leading, "b", early)
        leading.tick(5)
        self.assertTrue(leading.is_leader)

        for _ in range(5):
            leading.tick()

        self.assertFalse(leading.is_leader)

    def test_each_stall_that_a_quorum_has_answered_for_may_be_followed(self) -> None:
        """The next one has its round too."""
        leading = self.stalled()
        self.answers(leading, "c")

        leading.tick(12)
        self.answers(leading, "b", "c")

        self.assertTrue(leading.is_leader)

    def test_followers_that_are_held_up_after_it(self) -> None:
        """All apply the same entry; they have what is left of the heartbeat timeout."""
        for answer_comes in (True, False):
            leading = self.stalled()
            self.answers(leading, "b")
            leading.tick(2)
            waits = sent(sync(leading), Heartbeat, "b")
            for _ in range(7):
                leading.tick()
            self.assertFalse(leading.role.hears_leader)
            self.assertTrue(leading.is_leader)
            for heartbeat in waits if answer_comes else []:
                accept(leading, "b", heartbeat)
                self.answers(leading, "b")

            leading.tick()
            self.assertEqual(leading.is_leader, answer_comes)

    def test_silence_before_the_stall_counts(self) -> None:
        """A leader that had lost its quorum was not only late."""
        leading = settled_leader()
        for _ in range(8):
            leading.tick()
            leading.ready()

        leading.tick(3)

        self.assertFalse(leading.is_leader)

    def test_an_answer_to_what_left_before_the_stall_ends_no_doubt(self) -> None:
        """It may have waited for as long as the stall."""
        leading = settled_leader()
        leading.tick(2)
        early = sent(sync(leading), Heartbeat, "b")[0]
        leading.tick(12)

        accept(leading, "b", early)

        self.assertFalse(leading.role.hears_leader)
        [again] = sent(leading.ready(), Heartbeat, "b")
        accept(leading, "b", again)
        self.assertTrue(leading.role.hears_leader)

    def test_confirms_nothing_meanwhile(self) -> None:
        """Not even what a quorum has answered, before the stall as it may be."""
        leading = settled_leader(voters="abcde")
        leading.verify("token")
        early = sync(leading)
        accept(leading, "b", sent(early, Heartbeat, "b")[0])
        leading.tick(12)
        accept(leading, "c", sent(early, Heartbeat, "c")[0])

        ready = leading.ready()
        self.assertEqual(ready.verified, [])
        for peer in "bc":
            self.assertEqual(leading.ready().verified, [])
            accept(leading, peer, sent(ready, Heartbeat, peer)[0])

        self.assertEqual(leading.ready().verified, [("token", 1)])

    def test_votes_as_one_who_hears_nobody(self) -> None:
        """Its followers may have given it up: it does not stand in the way."""
        for request, kind in (
            (RequestVoteRequest(2, "b", 9, 1), RequestVoteResponse),
            (RequestPreVoteRequest(2, "b", 9, 1), RequestPreVoteResponse),
        ):
            leading = self.stalled()

            leading.request(request, "reply")

            ready = leading.ready()
            [answer] = [m for to, m in ready.send + ready.after_sync if to == "reply"]
            assert isinstance(answer, kind)
            self.assertTrue(answer.granted)

    def test_a_disk_that_came_late_with_it_has_its_time(self) -> None:
        """What it has written may be announced a moment after the stall."""
        leading = settled_leader()
        leading.propose([command()])
        ready = leading.ready()
        leading.tick(12)
        self.assertTrue(leading.is_leader)

        leading.synced(ready.write_number)
        self.answers(leading, "b")
        leading.tick()

        self.assertTrue(leading.is_leader)


class Verification(SynchronousTestCase):
    """`verify`: is this still the leader?  Source: Raft dissertation §6.4."""

    def test_verify_counts_only_rounds_begun_after(self) -> None:
        """A heartbeat that was on its way proves nothing about now."""
        leading = settled_leader()
        leading.tick(2)
        early = sent(sync(leading), Heartbeat, "b")[0]
        leading.verify("token")
        sync(leading)

        accept(leading, "b", early)
        ready = leading.ready()
        self.assertEqual(ready.verified, [])

        accept(leading, "b", sent(ready, Heartbeat, "b")[0])
        self.assertEqual(leading.ready().verified, [("token", 1)])

    def test_verify_needs_a_quorum(self) -> None:
        """One of four others is not enough."""
        leading = settled_leader(voters="abcde")
        leading.verify("token")
        ready = leading.ready()

        accept(leading, "b", sent(ready, Heartbeat, "b")[0])
        self.assertEqual(leading.ready().verified, [])
        accept(leading, "c", sent(ready, Heartbeat, "c")[0])
        self.assertEqual(leading.ready().verified, [("token", 1)])

    def test_verify_waits_for_an_entry_of_this_term(self) -> None:
        """Before it a new leader does not know what is committed."""
        leading = leader(2, log=log_of(1))
        leading.verify("token")
        ready = sync(leading)
        accept(leading, "b", sent(ready, Heartbeat, "b")[0])
        self.assertEqual(leading.ready().verified, [])

        accept(leading, "b", sent(ready, Replicate, "b")[0])

        self.assertEqual(leading.ready().verified, [("token", 2)])

    def test_verify_alone_is_answered_at_once(self) -> None:
        """The only voter is its own quorum."""
        alone = settled_leader(voters="a")

        alone.verify("token")

        self.assertEqual(alone.ready().verified, [("token", 1)])

    def test_verify_refused_heartbeat_does_not_count(self) -> None:
        """Only success says that the term is current."""
        leading = settled_leader()
        leading.verify("token")
        heartbeat = sent(leading.ready(), Heartbeat, "b")[0]

        leading.response("b", heartbeat, AppendEntriesResponse(1, 0, False))

        self.assertEqual(leading.ready().verified, [])

    def test_verify_does_not_count_answers_of_an_earlier_leadership(self) -> None:
        """A late answer to a heartbeat of an older term of ours proves nothing."""
        leading = settled_leader(5)
        leading.verify("token")
        now = sent(leading.ready(), Heartbeat, "b")[0]

        stale = Heartbeat(3, now.round, now.sent, now.stream)
        leading.response("b", stale, AppendEntriesResponse(5, 0, True))

        self.assertEqual(leading.ready().verified, [])

    def test_verify_does_not_count_answers_of_an_earlier_stream(self) -> None:
        """Nor one to a heartbeat that a removed and re-added peer got before."""
        leading = settled_leader()
        leading.verify("token")
        now = sent(leading.ready(), Heartbeat, "b")[0]

        stale = Heartbeat(1, now.round, now.sent, now.stream - 1)
        leading.response("b", stale, AppendEntriesResponse(1, 0, True))

        self.assertEqual(leading.ready().verified, [])

    def test_verify_many_share_rounds(self) -> None:
        """Calls that wait for the same round cost one heartbeat."""
        leading = settled_leader()
        for token in range(10):
            leading.verify(token)

        heartbeats = sent(leading.ready(), Heartbeat, "b")
        self.assertEqual(len(heartbeats), 1)
        accept(leading, "b", heartbeats[0])

        self.assertEqual([t for t, _ in leading.ready().verified], list(range(10)))


class Rivals(SynchronousTestCase):
    """A leader that meets others."""

    def test_append_entries_of_a_newer_term_deposes(self) -> None:
        """It follows, and keeps no leader's state."""
        leading = settled_leader(2)

        leading.request(AppendEntriesRequest(3, "b"), "reply")

        self.assertEqual((leading.is_leader, leading.leader), (False, "b"))

    def test_install_snapshot_in_its_own_term_refused(self) -> None:
        """Nobody else leads this term."""
        leading = settled_leader(2)
        request = InstallSnapshotRequest(2, "b", 9, 2, 0, leading.configuration, 1)

        leading.request(request, "reply")

        self.assertTrue(leading.is_leader)
        (answer,) = [m for to, m in leading.ready().send if to == "reply"]
        self.assertIsInstance(answer, Refusal)

    def test_propose_at_a_follower_accepts_nothing(self) -> None:
        """What is not accepted keeps index 0."""
        entry = command()

        server().propose([entry])

        self.assertEqual((entry.index, entry.term), (0, 0))
