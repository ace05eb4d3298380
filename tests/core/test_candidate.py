"""Campaigns: pre-votes, votes, and their count."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    candidate,
    give_vote,
    log_of,
    membership,
    sent,
    server,
    sync,
)
from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.consensus import Consensus
from txraft.core.follower import Follower
from txraft.core.messages import (
    AppendEntriesRequest,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
)


def pre_candidate(voters: str = "abc", by_timer: bool = True) -> Consensus:
    """Start a server that asks for pre-votes in term 2."""
    consensus = server(voters=voters, term=2)
    consensus.become_pre_candidate(by_timer)
    return consensus


class OwnVote(SynchronousTestCase):
    """A candidate's own vote counts when it is on disk.

    Nobody may lead one term twice.
    """

    def test_campaign_asks_after_its_own_vote_is_synced(self) -> None:
        """Term and vote are one write, before any vote request leaves."""
        campaigner = candidate(3, log=log_of(1, 2))

        ready = campaigner.ready()

        self.assertEqual(ready.send, [])
        assert ready.hard_state is not None
        self.assertEqual((ready.hard_state.term, ready.hard_state.voted_for), (3, "a"))
        request = RequestVoteRequest(3, "a", 2, 2)
        self.assertEqual(ready.after_sync, [("b", request), ("c", request)])

    def test_synced_counts_the_own_vote_of_the_only_voter(self) -> None:
        """Also alone a server waits for its disk."""
        alone = candidate(1, voters="a")
        ready = alone.ready()
        self.assertFalse(alone.is_leader)

        alone.synced(ready.write_number)

        self.assertTrue(alone.is_leader)

    def test_synced_of_an_earlier_write_does_not_count(self) -> None:
        """An old write says nothing of this vote."""
        alone = server(voters="a", term=1)
        alone.request(AppendEntriesRequest(2, "z"), "reply")
        earlier = alone.ready()
        alone.become_candidate()
        alone.ready()

        alone.synced(earlier.write_number)

        self.assertFalse(alone.is_leader)

    def test_own_vote_unsynced_is_not_counted(self) -> None:
        """One of two votes is no quorum of three, whoever it is from."""
        campaigner = candidate(3)
        campaigner.ready()

        give_vote(campaigner, "b")

        self.assertFalse(campaigner.is_leader)


class Counting(SynchronousTestCase):
    """Votes are counted by voter, for one term.  Source: §3.4."""

    def setUp(self) -> None:
        self.campaigner = candidate(3, voters="abcde")
        sync(self.campaigner)

    def test_response_from_a_quorum_wins(self) -> None:
        """Three of five lead."""
        give_vote(self.campaigner, "b")
        self.assertFalse(self.campaigner.is_leader)
        give_vote(self.campaigner, "c")
        self.assertTrue(self.campaigner.is_leader)

    def test_response_repeated_counts_once(self) -> None:
        """A vote that comes twice is one vote."""
        for _ in range(5):
            give_vote(self.campaigner, "b")

        self.assertFalse(self.campaigner.is_leader)

    def test_response_of_an_earlier_campaign_does_not_count(self) -> None:
        """A late vote was for another term."""
        late = RequestVoteRequest(2, "a", 0, 0)
        for voter in "bcde":
            self.campaigner.response(voter, late, RequestVoteResponse(2, True))

        self.assertFalse(self.campaigner.is_leader)

    def test_response_from_who_is_no_voter_does_not_count(self) -> None:
        """Only voters of the configuration in force decide."""
        for stranger in "xyz":
            give_vote(self.campaigner, stranger)

        self.assertFalse(self.campaigner.is_leader)

    def test_response_to_another_question_does_not_count(self) -> None:
        """A late pre-vote is no vote."""
        question = RequestPreVoteRequest(3, "a", 0, 0)
        for voter in "bcde":
            self.campaigner.response(voter, question, RequestPreVoteResponse(3, True))

        self.assertFalse(self.campaigner.is_leader)

    def test_response_with_a_newer_term_ends_the_campaign(self) -> None:
        """A newer term in any answer is adopted."""
        request = RequestVoteRequest(3, "a", 0, 0)
        self.campaigner.response("b", request, RequestVoteResponse(7, False))

        self.assertIsInstance(self.campaigner.role, Follower)
        self.assertEqual((self.campaigner.term, self.campaigner.voted_for), (7, None))

    def test_even_number_of_voters(self) -> None:
        """Two of four are no quorum."""
        campaigner = candidate(3, voters="abcd")
        sync(campaigner)
        give_vote(campaigner, "b")
        self.assertFalse(campaigner.is_leader)
        give_vote(campaigner, "c")
        self.assertTrue(campaigner.is_leader)

    def test_a_candidate_that_is_no_voter_does_not_count_itself(self) -> None:
        """A server that is being removed needs a quorum of the others.

        Source: Raft dissertation §4.2.2.
        """
        leaving = server(term=2)
        entry = membership("b", "c")
        entry.index, entry.term = 1, 2
        leaving.request(AppendEntriesRequest(2, "b", 0, 0, [entry]), "reply")
        leaving.become_candidate()
        sync(leaving)

        give_vote(leaving, "b")
        self.assertFalse(leaving.is_leader)
        give_vote(leaving, "c")
        self.assertTrue(leaving.is_leader)


class Rounds(SynchronousTestCase):
    """What follows a campaign that brought no leader."""

    def test_tick_begins_a_new_round_with_pre_votes(self) -> None:
        """Terms do not rise while nobody can win."""
        campaigner = candidate(3)
        sync(campaigner)

        for _ in range(100):
            campaigner.tick()

        self.assertIsInstance(campaigner.role, PreCandidate)
        self.assertEqual(campaigner.term, 3)

    def test_tick_without_pre_vote_takes_a_new_term(self) -> None:
        """The plain algorithm campaigns again.  Source: §3.4."""
        campaigner = candidate(3, pre_vote=False)
        sync(campaigner)

        for _ in range(20):
            campaigner.tick()

        self.assertIsInstance(campaigner.role, Candidate)
        self.assertGreater(campaigner.term, 3)

    def test_ready_after_election_opens_the_leadership(self) -> None:
        """A leader appends an entry of its term and says that it leads."""
        campaigner = candidate(3)
        sync(campaigner)
        give_vote(campaigner, "b")

        ready = campaigner.ready()

        self.assertEqual([(e.index, e.term) for e in ready.append], [(1, 3)])
        self.assertEqual({to for to, _ in ready.send}, {"b", "c"})


class SplitVotes(SynchronousTestCase):
    """A split vote is over when its last voter has answered; silence is no vote.

    A server that is cut off, or whose log is not complete, would otherwise take one
    term after the other and keep those from campaigning who can win.
    """

    SHORT = 2
    """The longest short wait: a fifth of the heartbeat timeout."""

    def split(self, campaigner: Consensus, term: int | None = None) -> None:
        """Let `b` have voted for another, in *term*, and `c` be down."""
        sync(campaigner)
        request = RequestVoteRequest(campaigner.term, "a", 0, 0)
        refusal = RequestVoteResponse(term or campaigner.term, False)
        campaigner.response("b", request, refusal)
        campaigner.unreachable("c", request)

    def wait(self, campaigner: Consensus) -> None:
        """Let a short wait pass."""
        for _ in range(self.SHORT):
            campaigner.tick()

    def test_tick_begins_another_round_soon(self) -> None:
        """Nobody has to wait for the end of an election that has no winner."""
        campaigner = candidate(3)
        self.split(campaigner)

        self.wait(campaigner)

        self.assertIsInstance(campaigner.role, PreCandidate)

    def test_tick_takes_its_time_while_a_vote_may_come(self) -> None:
        """One refusal leaves a quorum of three."""
        campaigner = candidate(3)
        sync(campaigner)
        request = RequestVoteRequest(3, "a", 0, 0)
        campaigner.response("b", request, RequestVoteResponse(3, False))

        self.wait(campaigner)

        self.assertIsInstance(campaigner.role, Candidate)

    def test_tick_takes_its_time_after_silence(self) -> None:
        """Who reaches nobody has lost no vote."""
        campaigner = candidate(3)
        sync(campaigner)
        request = RequestVoteRequest(3, "a", 0, 0)
        campaigner.unreachable("b", request)
        campaigner.unreachable("c", request)

        self.wait(campaigner)

        self.assertIsInstance(campaigner.role, Candidate)

    def test_tick_takes_its_time_after_a_refusal_of_an_older_term(self) -> None:
        """That voter hears a leader."""
        campaigner = candidate(3)
        self.split(campaigner, term=2)

        self.wait(campaigner)

        self.assertIsInstance(campaigner.role, Candidate)

    def test_tick_takes_its_time_after_a_second_split_vote(self) -> None:
        """One short round, and then a long one."""
        campaigner = candidate(3)
        self.split(campaigner)
        self.wait(campaigner)
        campaigner.become_candidate()
        self.split(campaigner)

        self.wait(campaigner)

        self.assertIsInstance(campaigner.role, Candidate)

    def test_tick_takes_its_time_without_pre_vote(self) -> None:
        """The plain algorithm has nothing else to hold a hopeless candidate back."""
        campaigner = candidate(3, pre_vote=False)
        self.split(campaigner)

        self.wait(campaigner)

        self.assertEqual(campaigner.term, 3)


class PreVoteRounds(SynchronousTestCase):
    """Asking without a new term.  Source: Raft dissertation §9.6."""

    def setUp(self) -> None:
        self.question = RequestPreVoteRequest(3, "a", 0, 0)

    def grant(self, consensus: Consensus, peer: str, term: int = 3) -> None:
        """Deliver a granted pre-vote."""
        answer = RequestPreVoteResponse(term, True)
        consensus.response(peer, RequestPreVoteRequest(term, "a", 0, 0), answer)

    def test_campaign_asks_for_the_next_term_and_stays_in_this(self) -> None:
        """The questions may leave at once, and nothing is written."""
        ready = pre_candidate().ready()

        self.assertEqual(ready.send, [("b", self.question), ("c", self.question)])
        self.assertFalse(ready.has_write)

    def test_response_from_a_quorum_begins_the_election(self) -> None:
        """Only then the term rises."""
        asking = pre_candidate()

        self.grant(asking, "b")

        self.assertIsInstance(asking.role, Candidate)
        self.assertEqual(asking.term, 3)

    def test_response_granted_does_not_raise_the_term(self) -> None:
        """A granted answer names the term asked about, in which nobody is."""
        asking = pre_candidate("abcde")

        self.grant(asking, "b")
        self.grant(asking, "b")

        self.assertEqual((asking.term, type(asking.role)), (2, PreCandidate))

    def test_response_of_an_earlier_round_does_not_count(self) -> None:
        """It was about another term."""
        asking = pre_candidate()

        self.grant(asking, "b", term=2)

        self.assertIsInstance(asking.role, PreCandidate)

    def test_response_refused_with_a_newer_term_adopts_it(self) -> None:
        """The longest log must learn the highest term, or nobody can win."""
        asking = pre_candidate()

        asking.response("b", self.question, RequestPreVoteResponse(9, False))

        self.assertEqual((asking.term, type(asking.role)), (9, Follower))

    def test_unreachable_by_closing_counts_in_a_timed_round(self) -> None:
        """An old peer hangs up on what it does not know; it must not block us."""
        asking = pre_candidate(by_timer=True)

        asking.unreachable("b", self.question, closed=True)

        self.assertIsInstance(asking.role, Candidate)

    def test_unreachable_by_closing_is_a_refusal_after_a_lost_link(self) -> None:
        """Then the peer may be going down itself."""
        asking = pre_candidate(by_timer=False)

        asking.unreachable("b", self.question, closed=True)

        self.assertIsInstance(asking.role, PreCandidate)

    def test_round_of_a_follower_whose_leader_hung_up(self) -> None:
        """The follower tells the round what it was that began it."""
        follower = server(term=2)
        follower.request(AppendEntriesRequest(2, "c"), "reply")
        follower.disconnected("c")
        while isinstance(follower.role, Follower):
            follower.tick()

        follower.unreachable("b", self.question, closed=True)

        self.assertIsInstance(follower.role, PreCandidate)

    def test_unreachable_without_an_answer_never_counts(self) -> None:
        """Silence grants nothing."""
        asking = pre_candidate(by_timer=True)

        asking.unreachable("b", self.question, closed=False)

        self.assertIsInstance(asking.role, PreCandidate)

    def test_unsupported_counts(self) -> None:
        """A peer that has no pre-vote does not object."""
        asking = pre_candidate(by_timer=False)

        asking.unsupported("b", self.question)

        self.assertIsInstance(asking.role, Candidate)

    def test_tick_after_a_lost_link_begins_a_timed_round(self) -> None:
        """The second round is one that silence began."""
        asking = pre_candidate(by_timer=False)
        for _ in range(19):
            asking.tick()

        asking.unreachable("b", self.question, closed=True)

        self.assertIsInstance(asking.role, Candidate)

    def test_the_only_voter_asks_nobody(self) -> None:
        """Its own consent is a quorum."""
        alone = pre_candidate("a")

        self.assertIsInstance(alone.role, Candidate)
        self.assertEqual(sent(alone.ready(), RequestPreVoteRequest), [])

    def test_timeout_now_skips_pre_votes(self) -> None:
        """The leader has asked for this election.  Source: §3.10."""
        asking = pre_candidate()

        asking.request(TimeoutNowRequest(), "reply")

        self.assertIsInstance(asking.role, Candidate)
