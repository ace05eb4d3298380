"""Planted bugs in transitions: a `Next` that nobody looks at, and timers drawn wrongly."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="the end of an election timeout changes nothing",
        at="Consensus.tick",
        old="if (wanted := self.role.tick(count)) is not None: ...",
        new="self.role.tick(count)",
        caught_by="tests.core.test_leader.Lease.test_tick_without_answers_steps_down",
    ),
    Mutant(
        name="a response that wins changes nothing",
        at="Consensus.response",
        old="(wanted := self.role.response(...)) is not None",
        new="(wanted := self.role.response(...)) is self",
        caught_by="tests.core.test_candidate.Counting.test_response_from_a_quorum_wins",
        seed=0,
    ),
    Mutant(
        name="a peer that hung up on a pre-vote is counted for nothing",
        at="Consensus.unreachable",
        old="if (wanted := self.role.unreachable(peer, request, closed)) is not None: ...",
        new="self.role.unreachable(peer, request, closed)",
        caught_by="tests.core.test_candidate.PreVoteRounds.test_unreachable_by_closing_counts_in_a_timed_round",
    ),
    Mutant(
        name="a peer without pre-vote is counted for nothing",
        at="Consensus.unsupported",
        old="if (wanted := self.role.unsupported(peer, request)) is not None: ...",
        new="self.role.unsupported(peer, request)",
        caught_by="tests.core.test_candidate.PreVoteRounds.test_unsupported_counts",
    ),
    Mutant(
        name="the own vote of the only voter wins nothing",
        at="Consensus.synced",
        old="if (wanted := self.role.synced(index)) is not None: ...",
        new="self.role.synced(index)",
        caught_by="tests.core.test_candidate.OwnVote.test_synced_counts_the_own_vote_of_the_only_voter",
    ),
    Mutant(
        name="a removed leader leads on",
        at="Consensus.ready",
        old="if (wanted := self.role.flush()) is not None: ...",
        new="self.role.flush()",
        caught_by="tests.core.test_membership.SelfRemoval.test_removal_committed_tells_all_and_steps_down",
    ),
    Mutant(
        name="a pre-candidate that has voted for another goes on",
        at="Consensus._request_vote",
        old="if (wanted := self.role.granted_vote()) is not None: ...",
        new="self.role.granted_vote()",
        caught_by="tests.core.test_voting.WhileCampaigning.test_request_vote_granted_by_a_pre_candidate_ends_its_round",
    ),
    Mutant(
        name="the only voter waits for pre-votes",
        at="Consensus.become_pre_candidate",
        old="if (wanted := self.role.campaign()) is not None: ...",
        new="self.role.campaign()",
        caught_by="tests.core.test_candidate.PreVoteRounds.test_the_only_voter_asks_nobody",
    ),
    Mutant(
        name="the target of a leadership transfer asks for pre-votes",
        at="Consensus._become",
        old="self.become_candidate(is_transfer=True)",
        new="self.become_pre_candidate(False)",
        caught_by="tests.core.test_transfer.NumberedTarget.test_campaigns_with_the_consent",
    ),
    Mutant(
        name="a round after a lost link counts those that hang up",
        at="Consensus._become",
        old="wanted is Next.CAMPAIGN",
        new="True",
        caught_by="tests.core.test_candidate.PreVoteRounds.test_round_of_a_follower_whose_leader_hung_up",
    ),
    Mutant(
        name="all servers wait equally long",
        at="ElectionTimer.restart",
        old="self._least + self._random.randrange(self._least)",
        new="self._least + self._random.randrange(self._least) * 0",
        caught_by="tests.core.test_role.Timer.test_restart_draws_once_to_twice_the_least",
    ),
    Mutant(
        name="a short wait goes on from the long one",
        at="ElectionTimer.restart_short",
        old="self.elapsed = 0",
        new="",
        caught_by="tests.core.test_role.Timer.test_restart_short_begins_anew",
    ),
    Mutant(
        name="a wait that is shortened may become longer",
        at="ElectionTimer.shorten",
        old="min(self._timeout, self.elapsed + self._draw_short_wait())",
        new="self.elapsed + self._draw_short_wait()",
        caught_by="tests.core.test_role.Timer.test_shorten_never_makes_it_longer",
    ),
)
