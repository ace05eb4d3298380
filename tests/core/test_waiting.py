"""News from which nothing follows yet may wait for the next input."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    candidate,
    command,
    sent,
    server,
    settled_leader,
    sync,
)
from txraft.core.consensus import Consensus
from txraft.core.messages import AppendEntriesResponse
from txraft.core.ready import Heartbeat, Replicate


def proposed(
    count: int = 1, **options: int
) -> tuple[Consensus, int, Replicate, Replicate]:
    """Make a leader with *count* new entries.

    Returns: the leader, the number of its write, what it sends to b, and to c.
    """
    leading = settled_leader(**options)
    leading.propose([command() for _ in range(count)])
    ready = leading.ready()
    to_b, to_c = (sent(ready, Replicate, peer)[0] for peer in "bc")
    return leading, ready.write_number, to_b, to_c


class OwnCopy(SynchronousTestCase):
    """Whether anything follows from a write that is durable."""

    def test_news_of_a_copy_that_commits(self) -> None:
        """A leader's own copy is the second one, of three."""
        leading, write, to_b, _ = proposed()
        accept(leading, "b", to_b)

        leading.synced(write)

        self.assertTrue(leading.needs_ready(None))

    def test_news_of_the_first_copy(self) -> None:
        """One copy of three commits nothing."""
        leading, write, _, _ = proposed()

        leading.synced(write)

        self.assertFalse(leading.needs_ready(None))

    def test_news_of_a_third_copy(self) -> None:
        """What others have committed is committed without the leader's copy."""
        leading, write, to_b, to_c = proposed()
        accept(leading, "b", to_b)
        accept(leading, "c", to_c)
        leading.ready()

        leading.synced(write)

        self.assertFalse(leading.needs_ready(None))

    def test_news_of_a_copy_as_candidate(self) -> None:
        """A candidate's own vote counts only once it is durable."""
        self.assertTrue(candidate().needs_ready(None))

    def test_news_of_a_vote_that_wins(self) -> None:
        """The only voter leads as soon as its own vote is durable, and says so."""
        alone = server(voters="a", campaign_at_once=True)
        alone.tick()
        sync(alone)

        self.assertTrue(alone.is_leader)
        self.assertTrue(alone.needs_ready(None))

    def test_news_of_a_copy_as_follower(self) -> None:
        """A follower's promises are held back until then, and it decides nothing."""
        self.assertFalse(server().needs_ready(None))


class Answers(SynchronousTestCase):
    """Whether anything follows from an answer."""

    def test_news_of_an_answer_that_commits(self) -> None:
        """With the leader's own copy it is a quorum."""
        leading, write, to_b, _ = proposed()
        leading.synced(write)

        accept(leading, "b", to_b)

        self.assertTrue(leading.needs_ready("b"))

    def test_news_of_the_first_answer(self) -> None:
        """The leader's own copy is not there yet."""
        leading, _, to_b, _ = proposed()

        accept(leading, "b", to_b)

        self.assertFalse(leading.needs_ready("b"))

    def test_news_of_a_third_copy(self) -> None:
        """One copy more of what is committed changes nothing."""
        leading, write, to_b, to_c = proposed()
        leading.synced(write)
        accept(leading, "b", to_b)
        leading.ready()

        accept(leading, "c", to_c)

        self.assertFalse(leading.needs_ready("c"))

    def test_news_of_room_in_the_window(self) -> None:
        """An answer lets more be sent when not all of the log has been."""
        leading, _, _, to_c = proposed(9, max_append_entries=1)

        accept(leading, "c", to_c)

        self.assertTrue(leading.needs_ready("c"))
        self.assertLess(to_c.last, leading.log.last_index)

    def test_news_of_a_refusal(self) -> None:
        """What was refused must be sent again."""
        leading, _, _, to_c = proposed()

        leading.response("c", to_c, AppendEntriesResponse(1, 0, False))

        self.assertTrue(leading.needs_ready("c"))

    def test_news_of_a_newer_term(self) -> None:
        """A leader that is none any more has that to write."""
        leading, _, _, to_c = proposed()

        leading.response("c", to_c, AppendEntriesResponse(9, 0, False))

        self.assertFalse(leading.is_leader)
        self.assertTrue(leading.needs_ready("c"))

    def test_news_of_the_target_of_a_transfer(self) -> None:
        """It may campaign once it has everything."""
        leading, _, _, to_c = proposed()
        leading.transfer("c")

        accept(leading, "c", to_c)

        self.assertTrue(leading.needs_ready("c"))

    def test_news_of_a_removed_server_that_must_be_told(self) -> None:
        """The leader forgets it once it knows of its removal."""
        leading, _, _, to_c = proposed()
        leading.role.followers["c"].removal_index = 1  # type: ignore[union-attr]

        accept(leading, "c", to_c)

        self.assertTrue(leading.needs_ready("c"))

    def test_news_of_a_verification(self) -> None:
        """The answer that confirms a leader is what somebody waits for."""
        leading = settled_leader()
        leading.verify("token")
        [heartbeat] = sent(sync(leading), Heartbeat, "b")

        leading.response("b", heartbeat, AppendEntriesResponse(1, 1, True))

        self.assertTrue(leading.needs_ready("b"))
        self.assertEqual([token for token, _ in leading.ready().verified], ["token"])
