"""A removal that takes long to commit: until then nobody acts as if it had."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import accept, answer_all, membership, sent, settled_leader
from tests.support.builders import sync as take
from txraft.core.leader import Leader
from txraft.core.ready import Replicate

LONG = 40
"""Ticks; more than any wait of a leader for one that was removed."""


class Delayed(SynchronousTestCase):
    """Membership changes while nobody answers.  Source: §4.2.2."""

    def test_removed_leader_stays_until_it_is_committed(self) -> None:
        """If it went the change might never be committed, and nobody would know."""
        leading = settled_leader(check_quorum=False)
        leading.change_configuration(membership("b", "c"))
        for _ in range(LONG):
            take(leading)
            leading.tick()

        self.assertTrue(leading.is_leader)

    def test_removed_follower_is_told_until_some_time_after_the_commit(self) -> None:
        """The time that it has to answer begins with the commit."""
        leading = settled_leader(check_quorum=False)
        leading.change_configuration(membership("a", "b"))
        for _ in range(LONG):
            take(leading)
            leading.tick()
        answer_all(leading, "c")
        leading.tick()

        assert isinstance(leading.role, Leader)
        self.assertEqual(set(leading.role.followers), {"b", "c"})


class CommitIndex(SynchronousTestCase):
    """What an idle leader says."""

    def test_commit_index_is_said_again(self) -> None:
        """A follower that restarted knows of no commit, and heartbeats tell none."""
        leading = settled_leader()
        said = []
        for _ in range(LONG):
            ready = take(leading)
            said += [m for m in sent(ready, Replicate, "b") if m.last == m.prev_index]
            for to, message in ready.send:
                accept(leading, str(to), message)  # type: ignore[arg-type]
            leading.tick()

        self.assertGreater(len(said), 1)
        self.assertEqual({message.commit for message in said}, {1})
