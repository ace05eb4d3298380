"""Handing leadership over.  Source: Raft dissertation §3.10."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.builders import (
    accept,
    answer_of,
    append,
    command,
    log_of,
    sent,
    server,
    settled_leader,
    sync,
)
from txraft.core.candidate import Candidate
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.messages import (
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from txraft.core.ready import Heartbeat, Replicate


class Transfers(SynchronousTestCase):
    """`transfer` at a leader."""

    def test_transfer_tells_a_target_that_has_everything(self) -> None:
        """It may campaign at once."""
        leading = settled_leader()

        leading.transfer("b")

        self.assertEqual(
            sent(leading.ready(), TimeoutNowRequest, "b"), [TimeoutNowRequest()]
        )

    def test_transfer_first_brings_the_target_up_to_date(self) -> None:
        """It is told when it has the last entry, and once."""
        leading = settled_leader()
        leading.propose([command()])
        leading.transfer("b")
        ready = sync(leading)
        self.assertEqual(sent(ready, TimeoutNowRequest), [])

        accept(leading, "b", sent(ready, Replicate, "b")[0])

        self.assertEqual(len(sent(leading.ready(), TimeoutNowRequest, "b")), 1)
        self.assertEqual(sent(leading.ready(), TimeoutNowRequest), [])

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
