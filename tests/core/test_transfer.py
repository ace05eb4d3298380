"""Handing leadership over.  Source: Raft dissertation §3.10."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    answer_of,
    append,
    command,
    log_of,
    sent,
    server,
    settle,
    settled_leader,
    sync,
)
from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.consensus import Consensus
from txraft.core.messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.core.ready import Heartbeat, Ready, Replicate


class Transfers(SynchronousTestCase):
    """`transfer` at a leader."""

    def test_transfer_tells_a_target_that_has_everything(self) -> None:
        """It may campaign at once."""
        leading = settled_leader()

        leading.transfer("b")

        self.assertEqual(
            sent(leading.ready(), TimeoutNowRequest, "b"),
            [TimeoutNowRequest(transfer=1)],
        )

    def test_transfer_first_brings_the_target_up_to_date(self) -> None:
        """It is told when it has the last entry, which others may have before, once."""
        leading = settled_leader()
        leading.propose([command()])
        leading.transfer("b")
        ready = sync(leading)
        self.assertEqual(sent(ready, TimeoutNowRequest), [])
        accept(leading, "c", sent(ready, Replicate, "c")[0])
        self.assertEqual(leading.commit_index, leading.log.last_index)
        self.assertEqual(sent(leading.ready(), TimeoutNowRequest), [])

        accept(leading, "b", sent(ready, Replicate, "b")[0])

        self.assertEqual(len(sent(leading.ready(), TimeoutNowRequest, "b")), 1)
        self.assertEqual(sent(leading.ready(), TimeoutNowRequest), [])

    def test_transfer_first_commits_everything(self) -> None:
        """Or whoever waits for the outcome of an entry would never learn of it here.

        The target has all of them before this leader's own disk has.
        """
        leading = settled_leader()
        leading.propose([command()])
        leading.transfer("b")
        ready = leading.ready()
        accept(leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(sent(leading.ready(), TimeoutNowRequest), [])

        leading.synced(ready.write_number)

        self.assertEqual(leading.commit_index, leading.log.last_index)
        self.assertEqual(len(sent(leading.ready(), TimeoutNowRequest, "b")), 1)

    def test_transfer_accepts_no_entries_meanwhile(self) -> None:
        """Or the target would never have all of them."""
        leading = settled_leader()
        leading.transfer("b")
        entry = command()

        leading.propose([entry])

        self.assertTrue(leading.is_transferring)
        self.assertEqual(entry.index, 0)
        self.assertFalse(leading.may_change_configuration)

    def test_transfer_gives_up_after_an_election_timeout(self) -> None:
        """Then the leader serves again."""
        leading = settled_leader()
        leading.transfer("b")
        for _ in range(10):
            leading.tick()
            ready = sync(leading)
            for peer in "bc":
                for heartbeat in sent(ready, Heartbeat, peer):
                    accept(leading, peer, heartbeat)

        self.assertFalse(leading.is_transferring)
        leading.propose([command()])
        self.assertEqual(leading.log.last_index, 2)

    def test_transfer_gives_up_when_the_target_is_not_reached(self) -> None:
        """A lost TimeoutNow ends it, but not one for another target."""
        leading = settled_leader()
        leading.transfer("b")
        leading.ready()

        leading.unreachable("c", TimeoutNowRequest())
        self.assertTrue(leading.is_transferring)
        leading.unreachable("b", TimeoutNowRequest())
        self.assertFalse(leading.is_transferring)

    def test_transfer_only_to_another_voter(self) -> None:
        """Whoever cannot be elected is no target, and nothing stops."""
        members = Configuration(
            (
                *Configuration.of_voters("abc").servers,
                Server("n", "n", Suffrage.NONVOTER),
            )
        )
        leading = settled_leader(configuration=members)

        for target in ("n", "a", "stranger"):
            leading.transfer(target)
            self.assertFalse(leading.is_transferring, target)

    def test_transfer_ends_with_the_leadership(self) -> None:
        """A server that is elected again is not in a transfer any more."""
        leading = settled_leader()
        leading.transfer("b")
        leading.become_follower(2, None)

        leading.become_candidate()
        sync(leading)
        request = RequestVoteRequest(3, "a", 0, 0)
        leading.response("b", request, RequestVoteResponse(3, True))

        self.assertTrue(leading.is_leader)
        self.assertFalse(leading.is_transferring)


def question(term: int, transfer: int, sender: str = "b") -> RequestPreVoteRequest:
    """Make the question whether a transfer to *sender* still is under way."""
    return RequestPreVoteRequest(term, sender, 0, 0, transfer=transfer)


class Consent(SynchronousTestCase):
    """A leader that is asked whether it still transfers."""

    def asked(self, leading: Consensus, request: RequestPreVoteRequest) -> bool:
        leading.request(request, "reply")
        answer = answer_of(leading.ready())
        assert isinstance(answer, RequestPreVoteResponse)
        return answer.granted

    def transferring(self) -> Consensus:
        leading = settled_leader(3)
        leading.transfer("b")
        leading.ready()
        return leading

    def test_consents_while_the_transfer_is_under_way(self) -> None:
        """To the target, in this term, by its number."""
        self.assertTrue(self.asked(self.transferring(), question(4, 1)))

    def test_refuses_others_and_other_transfers(self) -> None:
        """Another server, term or number."""
        leading = self.transferring()
        for request in (question(4, 1, "c"), question(3, 1), question(4, 2)):
            self.assertFalse(self.asked(leading, request), request)

    def test_refuses_once_the_transfer_is_over(self) -> None:
        """Also when another one to the same server has begun."""
        leading = self.transferring()
        leading.unreachable("b", TimeoutNowRequest(transfer=1))
        self.assertFalse(self.asked(leading, question(4, 1)))
        leading.transfer("b")
        leading.ready()
        self.assertFalse(self.asked(leading, question(4, 1)))

        self.assertTrue(self.asked(leading, question(4, 2)))

    def test_refuses_before_the_target_was_told(self) -> None:
        """It has not all entries yet."""
        leading = settled_leader(3)
        leading.propose([command()])
        leading.transfer("b")
        sync(leading)

        self.assertFalse(self.asked(leading, question(4, 1)))

    def test_a_server_that_does_not_lead_consents_to_nothing(self) -> None:
        """Even if it would give its pre-vote."""
        follower = server("b", log=log_of(1), term=1)

        self.assertFalse(self.asked(follower, question(2, 1, "c")))


class Successors(SynchronousTestCase):
    """Whom a leader would hand its leadership to."""

    def test_most_complete_of_those_that_answer(self) -> None:
        """One that is silent for a lease is no successor, whatever it has."""
        leading = settled_leader()
        leading.propose([command()])
        ready = sync(leading)
        accept(leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(leading.best_successor(), "b")

        settle(leading, "b", ticks=9)

        self.assertEqual(leading.best_successor(), "c")
        self.assertGreater(leading.silence_of("b"), 8)
        self.assertEqual(leading.silence_of("c"), 0)

    def test_the_one_heard_last_of_equals(self) -> None:
        """The other may be dead since a moment ago."""
        for silent, other in (("b", "c"), ("c", "b")):
            leading = settled_leader()
            settle(leading, silent, ticks=4)

            self.assertEqual(leading.best_successor(), other)

    def test_nobody_when_nobody_answers(self) -> None:
        """All others have been silent for a lease."""
        leading = settled_leader(voters="ab", check_quorum=False)
        settle(leading, "b", ticks=12)

        self.assertIsNone(leading.best_successor())


class NumberedTarget(SynchronousTestCase):
    """A numbered `TimeoutNow` at the target, which asks its leader first."""

    def told(self, number: int = 7) -> tuple[Consensus, Ready]:
        target = server(log=log_of(1), term=1)
        target.request(append(1, (1, 1)), "first")
        sync(target)
        target.request(TimeoutNowRequest(transfer=number), "reply")
        return target, target.ready()

    def test_asks_the_leader_alone_and_does_not_campaign(self) -> None:
        """The request may have waited long."""
        target, ready = self.told()

        self.assertEqual(answer_of(ready), TimeoutNowResponse())
        asked = [(to, m) for to, m in ready.send if to != "reply"]
        request = RequestPreVoteRequest(2, "a", 1, 1, transfer=7)
        self.assertEqual(asked, [("b", request)])
        self.assertEqual(target.term, 1)

    def test_campaigns_with_the_consent(self) -> None:
        """At once, overriding the leader that is heard."""
        target, ready = self.told()
        [request] = sent(ready, RequestPreVoteRequest)

        target.response("b", request, RequestPreVoteResponse(2, True))

        vote = RequestVoteRequest(2, "a", 1, 1, leadership_transfer=True)
        self.assertEqual(target.ready().after_sync, [("b", vote), ("c", vote)])

    def test_stays_without_the_consent(self) -> None:
        """Refused, or of another term, or of a leader that leads no more."""
        target, ready = self.told()
        [request] = sent(ready, RequestPreVoteRequest)

        target.response("b", request, RequestPreVoteResponse(1, False))
        self.assertEqual(target.term, 1)
        target.unreachable("b", request, closed=True)
        target.unsupported("b", request)
        self.assertEqual(target.term, 1)
        target.request(append(2, (1, 1), sender="c"), "newer")
        target.response("b", request, RequestPreVoteResponse(2, True))

        self.assertEqual((target.term, target.leader), (2, "c"))

    def test_a_consent_of_another_leader_does_not_count(self) -> None:
        """The leader that was asked leads no more, and nobody knows who does."""
        target, ready = self.told()
        [request] = sent(ready, RequestPreVoteRequest)
        target.disconnected("b")

        target.response("b", request, RequestPreVoteResponse(2, True))

        self.assertEqual(target.term, 1)

    def test_a_consent_is_no_pre_vote(self) -> None:
        """It comes when the target asks for those itself: one more is needed."""
        target, ready = self.told()
        [request] = sent(ready, RequestPreVoteRequest)
        target.become_pre_candidate(by_timer=True)
        target.ready()

        target.response("b", request, RequestPreVoteResponse(2, True))
        target.unsupported("b", request)
        target.unreachable("b", request, closed=True)

        self.assertIsInstance(target.role, PreCandidate)

    def test_without_a_leader_there_is_nobody_to_ask(self) -> None:
        """An election comes without it."""
        target = server(term=1)

        target.request(TimeoutNowRequest(transfer=7), "reply")

        self.assertEqual(sent(target.ready(), RequestPreVoteRequest), [])
        self.assertEqual(target.term, 1)


class Target(SynchronousTestCase):
    """`TimeoutNow` at the target."""

    def test_timeout_now_campaigns_with_the_flag(self) -> None:
        """At once, without pre-votes, and overriding the leader that is heard."""
        target = server(log=log_of(1), term=1)
        target.request(append(1, (1, 1)), "first")
        sync(target)

        target.request(TimeoutNowRequest(), "reply")
        ready = target.ready()

        self.assertEqual(answer_of(ready), TimeoutNowResponse())
        request = RequestVoteRequest(2, "a", 1, 1, leadership_transfer=True)
        self.assertEqual(ready.after_sync, [("b", request), ("c", request)])

    def test_timeout_now_survives_a_late_request_of_the_old_leader(self) -> None:
        """The old leader's term is over for the target."""
        target = server(term=1)
        target.request(TimeoutNowRequest(), "reply")

        target.request(append(1, (0, 0), (1,)), "late")

        self.assertIsInstance(target.role, Candidate)

    def test_timeout_now_at_who_does_not_vote(self) -> None:
        """A nonvoter answers and stays."""
        target = server("x", term=1)

        target.request(TimeoutNowRequest(), "reply")

        self.assertEqual(answer_of(target.ready()), TimeoutNowResponse())
        self.assertEqual(target.term, 1)

    def test_timeout_now_at_a_candidate_begins_no_second_campaign(self) -> None:
        """A repeated one raises no term."""
        target = server(term=1)
        target.request(TimeoutNowRequest(), "one")

        target.request(TimeoutNowRequest(), "two")

        self.assertEqual(target.term, 2)

    def test_timeout_now_at_a_leader_means_nothing(self) -> None:
        """A leader does not campaign."""
        leading = settled_leader(3)

        leading.request(TimeoutNowRequest(), "reply")

        self.assertTrue(leading.is_leader)
        self.assertEqual(leading.term, 3)
