"""Votes and pre-votes: their conditions, and their promise before they are sent."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    answer_of,
    candidate,
    leader,
    log_of,
    request_vote,
    server,
    sync,
)
from txraft.core.consensus import MAX_TERM_JUMP, Consensus
from txraft.core.follower import Follower
from txraft.core.messages import (
    AppendEntriesRequest,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.ready import Refusal


def vote(consensus: Consensus, request: RequestVoteRequest) -> RequestVoteResponse:
    """Deliver *request* and return the answer."""
    consensus.request(request, "reply")
    answer = answer_of(sync(consensus))
    assert isinstance(answer, RequestVoteResponse)
    return answer


def pre_vote(
    consensus: Consensus, term: int, last: tuple[int, int], sender: str = "b"
) -> RequestPreVoteResponse:
    """Ask for a pre-vote and return the answer."""
    consensus.request(RequestPreVoteRequest(term, sender, *last), "reply")
    answer = answer_of(sync(consensus))
    assert isinstance(answer, RequestPreVoteResponse)
    return answer


def following(term: int = 2, name: str = "c") -> Consensus:
    """Start a server that hears the leader *name*."""
    consensus = server(log=log_of(1, 1, 2), term=term)
    consensus.request(AppendEntriesRequest(term, name), "heartbeat")
    sync(consensus)
    return consensus


class Votes(SynchronousTestCase):
    """`RequestVote` at a follower.  Source: Raft dissertation §3.4, §3.6.1."""

    def test_request_vote_judges_the_log_by_term_then_length(self) -> None:
        """Our log ends with (3, 2): a later term wins, then the longer log."""
        cases = {
            (3, 2): True,
            (4, 2): True,
            (2, 2): False,
            (1, 3): True,
            (99, 1): False,
        }

        granted = {
            last: vote(
                server(log=log_of(1, 1, 2), term=2), request_vote(3, last)
            ).granted
            for last in cases
        }

        self.assertEqual(granted, cases)

    def test_request_vote_only_one_candidate_a_term(self) -> None:
        """Every combination of our term, our vote and the candidate's term."""
        for asked, voted in product((1, 2, 3), (None, "b", "c")):
            voter = server(term=2, voted_for=voted)
            expected = asked == 3 or (asked == 2 and voted in (None, "b"))

            answer = vote(voter, request_vote(asked))

            self.assertEqual(answer.granted, expected, (asked, voted))
            self.assertEqual(answer.term, max(asked, 2))

    def test_request_vote_of_a_newer_term_frees_the_vote(self) -> None:
        """A refusal adopts the term too, and leaves nobody voted for."""
        voter = server(log=log_of(1, 1, 2), term=2, voted_for="c")

        answer = vote(voter, request_vote(5, (1, 1)))

        self.assertEqual(answer, RequestVoteResponse(5, False, ("a", "b", "c")))
        self.assertEqual((voter.term, voter.voted_for), (5, None))

    def test_request_vote_repeated_is_granted_again(self) -> None:
        """The candidate may have missed the answer."""
        voter = server(term=1)

        answers = [vote(voter, request_vote(2)).granted for _ in range(2)]

        self.assertEqual(answers, [True, True])
        self.assertFalse(vote(voter, request_vote(2, sender="c")).granted)

    def test_request_vote_from_a_stranger_is_judged_alike(self) -> None:
        """A voter may not know yet that the candidate has become a member.

        Source: Raft dissertation §4.1.
        """
        self.assertTrue(vote(server(term=1), request_vote(2, sender="new")).granted)

    def test_request_vote_at_a_server_that_is_no_voter_itself(self) -> None:
        """It may have been made one by entries that it has not got yet."""
        self.assertTrue(vote(server(voters="xyz"), request_vote(2)).granted)

    def test_request_vote_granted_restarts_the_timer(self) -> None:
        """Whoever gave its vote away gives the candidate time; a refusal does not."""
        for log, waits in ((log_of(), True), (log_of(9), False)):
            voter = server(term=9, log=log, seed=4)
            role = voter.role
            assert isinstance(role, Follower)
            for _ in range(9):
                voter.tick()
            vote(voter, request_vote(9))
            voter.tick()
            voter.tick()

            self.assertEqual(role.timer.elapsed < 9, waits)

    def test_request_vote_answer_names_the_voters(self) -> None:
        """A peer of version 0 reads them, and must not find none."""
        answer = vote(server(term=1), request_vote(2))

        self.assertEqual(answer.peers, ("a", "b", "c"))

    def test_request_vote_of_an_absurd_term_refused(self) -> None:
        """A term that would use up all terms is not adopted."""
        voter = server(term=1)

        voter.request(request_vote(2 + MAX_TERM_JUMP), "reply")

        self.assertIsInstance(answer_of(voter.ready()), Refusal)
        self.assertEqual(voter.term, 1)


class Durability(SynchronousTestCase):
    """A vote leaves after it is on disk."""

    def test_vote_granted_waits_for_its_write(self) -> None:
        """Term and vote are one write, and the answer comes after it."""
        voter = server(term=1)
        voter.request(request_vote(2), "reply")

        ready = voter.ready()

        assert ready.hard_state is not None
        self.assertEqual((ready.hard_state.term, ready.hard_state.voted_for), (2, "b"))
        self.assertEqual((ready.send, len(ready.after_sync)), ([], 1))

    def test_vote_in_a_term_that_is_durable_already_is_written(self) -> None:
        """Or the server votes for another after a crash, and two are elected."""
        voter = server(term=2)
        voter.request(request_vote(2, sender="b"), "reply")

        written = voter.ready().hard_state

        assert written is not None
        self.assertEqual((written.term, written.voted_for), (2, "b"))
        again = server(term=written.term, voted_for=written.voted_for)
        self.assertFalse(vote(again, request_vote(2, sender="c")).granted)

    def test_vote_repeated_waits_for_the_write_under_way(self) -> None:
        """A repeated answer has no write of its own, and waits for the first."""
        voter = server(term=1)
        voter.request(request_vote(2), "reply")
        first = voter.ready()
        voter.request(request_vote(2), "again")

        ready = voter.ready()

        self.assertFalse(ready.has_write)
        self.assertEqual(ready.send, [])
        self.assertEqual(ready.write_number, first.write_number)
        self.assertEqual(len(ready.after_sync), 1)

    def test_vote_refused_need_not_wait(self) -> None:
        """A refusal promises nothing."""
        voter = server(term=1, log=log_of(1))
        voter.request(request_vote(2), "reply")

        ready = voter.ready()

        self.assertEqual(len(ready.send), 1)


class Stickiness(SynchronousTestCase):
    """A server that hears a leader is not talked out of it.

    Source: Raft dissertation §4.2.3.
    """

    def test_request_vote_refused_while_a_leader_is_heard(self) -> None:
        """Neither vote nor term is taken from one who does not hear the leader."""
        voter = following()

        answer = vote(voter, request_vote(9, (99, 9)))

        self.assertEqual((answer.granted, answer.term), (False, 2))
        self.assertEqual((voter.term, voter.leader), (2, "c"))

    def test_request_vote_considered_once_the_leader_is_silent(self) -> None:
        """After the shortest election timeout the leader may be gone."""
        voter = following()
        for _ in range(10):
            voter.tick()

        self.assertTrue(vote(voter, request_vote(9, (99, 9))).granted)

    def test_request_vote_of_the_leader_itself_considered(self) -> None:
        """A leader that campaigns has stepped down."""
        self.assertTrue(vote(following(), request_vote(3, (9, 2), sender="c")).granted)

    def test_request_vote_at_the_leader_refused(self) -> None:
        """The leader hears itself: it is as deaf as its followers."""
        leading = leader(2)
        sync(leading)

        answer = vote(leading, request_vote(9, (99, 9)))

        self.assertFalse(answer.granted)
        self.assertTrue(leading.is_leader)
        self.assertEqual(leading.term, 2)

    def test_request_vote_for_a_transfer_overrides_the_leader(self) -> None:
        """The leader asked for this election.  Source: §4.2.3, §3.10."""
        leading = leader(2)
        sync(leading)

        for voter in (following(), leading):
            answer = vote(voter, request_vote(3, (99, 9), transfer=True))

            self.assertTrue(answer.granted)
            self.assertFalse(voter.is_leader)

    def test_request_vote_for_a_transfer_still_needs_a_complete_log(self) -> None:
        """The flag overrides the leader, not the rules."""
        self.assertFalse(
            vote(following(), request_vote(3, (1, 1), transfer=True)).granted
        )


class Nameless(SynchronousTestCase):
    """A candidate that does not say who it is; no peer sends that."""

    def test_request_vote_of_nobody_refused(self) -> None:
        """A vote for nobody is none on disk, so the term would have two."""
        voter = server(term=1)
        voter.request(RequestVoteRequest(2, "", 9, 9), "reply")

        answer = answer_of(sync(voter))

        self.assertEqual((answer.term, answer.granted), (2, False))
        self.assertIsNone(voter.voted_for)

    def test_request_pre_vote_of_nobody_refused(self) -> None:
        """It could not win the vote either."""
        self.assertFalse(pre_vote(server(term=1), 2, (9, 9), sender="").granted)


class PreVotes(SynchronousTestCase):
    """`RequestPreVote`: the same judgement, and nothing changes.

    Source: Raft dissertation §9.6.
    """

    def test_request_pre_vote_truth_table(self) -> None:
        """Granted for a term not below ours, a log not behind, no leader heard."""
        for term, complete, heard in product((1, 2, 3), (False, True), (False, True)):
            voter = following() if heard else server(log=log_of(1, 1, 2), term=2)
            last = (3, 2) if complete else (9, 1)

            answer = pre_vote(voter, term, last)

            expected = term >= 2 and complete and not heard
            self.assertEqual(answer.granted, expected, (term, complete, heard))

    def test_request_pre_vote_changes_nothing(self) -> None:
        """Neither term, vote nor timer: it is only a question."""
        voter = server(term=2, voted_for="c", seed=3)
        role = voter.role
        assert isinstance(role, Follower)
        for _ in range(5):
            voter.tick()

        answer = pre_vote(voter, 7, (9, 9))

        self.assertTrue(answer.granted)
        self.assertEqual((voter.term, voter.voted_for), (2, "c"))
        self.assertIs(voter.role, role)
        self.assertEqual(role.timer.elapsed, 5)

    def test_request_pre_vote_answer_does_not_wait(self) -> None:
        """It promises nothing, so it may overtake the disk."""
        voter = server(term=2)
        voter.request(RequestPreVoteRequest(3, "b", 0, 0), "reply")

        ready = voter.ready()

        self.assertEqual(ready.send, [("reply", RequestPreVoteResponse(3, True))])
        self.assertFalse(ready.has_write)

    def test_request_pre_vote_refused_tells_our_term(self) -> None:
        """So a server with the longest log learns the term it has to beat."""
        answer = pre_vote(server(term=9), 3, (99, 9))

        self.assertEqual(answer, RequestPreVoteResponse(9, False))

    def test_request_pre_vote_of_our_own_leader_considered(self) -> None:
        """A leader that stepped down is not refused because we followed it."""
        self.assertTrue(pre_vote(following(), 3, (9, 2), sender="c").granted)


class WhileCampaigning(SynchronousTestCase):
    """Votes at servers that campaign themselves."""

    def test_request_vote_at_a_candidate_of_the_same_term_refused(self) -> None:
        """Its vote is its own."""
        self.assertFalse(vote(candidate(3), request_vote(3, (9, 9))).granted)

    def test_request_vote_at_a_candidate_of_an_older_term(self) -> None:
        """A newer term ends its campaign."""
        campaigner = candidate(3)

        self.assertTrue(vote(campaigner, request_vote(4, (9, 9))).granted)
        self.assertIsInstance(campaigner.role, Follower)

    def test_request_vote_granted_by_a_pre_candidate_ends_its_round(self) -> None:
        """It stands back for who is a round ahead."""
        asking = server(term=3)
        asking.become_pre_candidate(by_timer=True)

        self.assertTrue(vote(asking, request_vote(3, (9, 9))).granted)
        self.assertIsInstance(asking.role, Follower)
