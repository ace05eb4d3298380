"""Which news may wait for the next input, because nothing hangs on it yet."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.builders import (
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
from txraft.core.ready import Replicate

ACCEPTED = AppendEntriesResponse(1, 0, True)


def proposed(count: int = 1, **options: int) -> tuple[Consensus, list[Replicate]]:
    """Make a leader with *count* new entries; return what it sends to b and c."""
    leading = settled_leader(**options)
    leading.propose([command() for _ in range(count)])
    ready = sync(leading)
    return leading, [sent(ready, Replicate, peer)[0] for peer in "bc"]


class OwnCopy(SynchronousTestCase):
    """Whether a server must know at once that its own write is durable."""

    def test_waits_for_copy_that_may_commit(self) -> None:
        """A leader's own copy counts for the commit."""
        leading = settled_leader()
        leading.propose([command()])

        self.assertTrue(leading.waits_for_copy(leading.log.last_index))

    def test_waits_for_copy_not_of_what_is_committed(self) -> None:
        """What others have committed needs no copy of the leader's."""
        leading = settled_leader()
        leading.propose([command()])
        ready = leading.ready()

        for peer in "bc":
            accept(leading, peer, sent(ready, Replicate, peer)[0])

        self.assertEqual(leading.commit_index, 2)
        self.assertFalse(leading.waits_for_copy(2))

    def test_waits_for_copy_as_candidate(self) -> None:
        """A candidate's own vote counts only once it is durable."""
        self.assertTrue(candidate().waits_for_copy(0))

    def test_waits_for_copy_not_as_follower(self) -> None:
        """A follower's promises are held back until then, and it decides nothing."""
        self.assertFalse(server().waits_for_copy(0))


class Answers(SynchronousTestCase):
    """Whether a leader must know at once that a follower has accepted a request."""

    def test_waits_for_an_answer_that_may_commit(self) -> None:
        """It counts for the commit."""
        leading, [to_b, _] = proposed()

        self.assertTrue(leading.waits_for("b", to_b, ACCEPTED))

    def test_waits_for_not_when_committed_and_all_is_sent(self) -> None:
        """One copy more of what is committed changes nothing."""
        leading, [to_b, to_c] = proposed()
        accept(leading, "b", to_b)

        self.assertFalse(leading.waits_for("c", to_c, ACCEPTED))

    def test_waits_for_room_in_the_window(self) -> None:
        """An answer lets more be sent when not all of the log has been."""
        leading, [to_b, to_c] = proposed(9, max_append_entries=1)
        accept(leading, "b", to_b)

        self.assertLess(to_c.last, leading.log.last_index)
        self.assertTrue(leading.waits_for("c", to_c, ACCEPTED))

    def test_waits_for_a_refusal(self) -> None:
        """What was refused must be sent again."""
        leading, [to_b, to_c] = proposed()
        accept(leading, "b", to_b)

        refused = AppendEntriesResponse(1, 0, False)

        self.assertTrue(leading.waits_for("c", to_c, refused))

    def test_waits_for_the_target_of_a_transfer(self) -> None:
        """It may campaign once it has everything."""
        leading, [to_b, to_c] = proposed()
        accept(leading, "b", to_b)
        leading.transfer("c")

        self.assertTrue(leading.waits_for("c", to_c, ACCEPTED))

    def test_waits_for_a_removed_server_that_must_be_told(self) -> None:
        """The leader forgets it once it knows of its removal."""
        leading, [to_b, to_c] = proposed()
        accept(leading, "b", to_b)
        leading.role.followers["c"].leaving = 1  # type: ignore[union-attr]

        self.assertTrue(leading.waits_for("c", to_c, ACCEPTED))
