"""Commit by the Log Matching Property: a follower learns that much and no more.

Source: Raft dissertation §3.5, figure 3.2.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    append,
    leader,
    log_of,
    server,
    settled_leader,
    sync,
)
from txraft.core.configuration import Configuration
from txraft.core.consensus import Consensus
from txraft.core.messages import InstallSnapshotRequest
from txraft.core.ready import SnapshotMark


def learnt(follower: Consensus, index: int, term: int) -> int:
    """Let *follower* learn of an entry; return the commit index that it hands out."""
    follower.learn_commit(index, term)
    return sync(follower).commit_index


class LearnCommit(SynchronousTestCase):
    def test_learn_commit_of_an_entry_in_the_log(self) -> None:
        """All up to it is committed, and nothing behind it."""
        follower = server(log=log_of(1, 1, 2, 2), term=2)

        self.assertEqual(learnt(follower, 3, 2), 3)

    def test_learn_commit_of_an_entry_of_another_term(self) -> None:
        """What stands at the index may be of a leader that was replaced."""
        follower = server(log=log_of(1, 1, 2), term=3)

        self.assertEqual(learnt(follower, 3, 3), 0)

    def test_learn_commit_when_the_entry_replaces_another(self) -> None:
        """It is looked for again when the log changes."""
        follower = server(log=log_of(1, 1, 2), term=2)
        learnt(follower, 3, 3)

        follower.request(append(3, (2, 1), (3, 3)), "reply")

        self.assertEqual(sync(follower).commit_index, 3)

    def test_learn_commit_before_the_entry_comes(self) -> None:
        """The leader's answer may overtake its entries."""
        follower = server(log=log_of(1), term=1)
        self.assertEqual(learnt(follower, 3, 1), 0)

        follower.request(append(1, (1, 1), (1,)), "reply")
        self.assertEqual(sync(follower).commit_index, 0)
        follower.request(append(1, (2, 1), (1, 1)), "reply")

        self.assertEqual(sync(follower).commit_index, 3)

    def test_learn_commit_remembers_the_newest(self) -> None:
        """The newest place covers all before it, in whatever order they come."""
        follower = server(log=log_of(1), term=1)
        for index in (3, 4, 2):
            learnt(follower, index, 1)

        follower.request(append(1, (1, 1), (1, 1, 1, 1)), "reply")

        self.assertEqual(sync(follower).commit_index, 4)

    def test_learn_commit_of_what_is_committed(self) -> None:
        """A commit index never falls, and an old place is forgotten."""
        follower = server(log=log_of(1, 1, 1), term=1)
        learnt(follower, 3, 1)

        self.assertEqual(learnt(follower, 2, 1), 3)
        self.assertEqual(learnt(follower, 3, 1), 3)
        self.assertIsNone(follower._learned)

    def test_learn_commit_below_a_snapshot(self) -> None:
        """Of what is compacted no term is known, and it is committed."""
        mark = SnapshotMark(5, 2, Configuration.of_voters("abc"), 1)
        follower = server(log=log_of(2, base=(5, 2)), term=2, snapshot=mark)

        self.assertEqual(learnt(follower, 4, 1), 5)
        self.assertIsNone(follower._learned)

    def test_learn_commit_as_a_leader(self) -> None:
        """A leader counts copies of entries of its own term, and nothing else."""
        elected = leader(3, log=log_of(1, 2))

        self.assertEqual(learnt(elected, 2, 2), 0)

    def test_learn_commit_as_a_leader_of_no_more(self) -> None:
        """What was learnt while it led counts when it follows."""
        elected = leader(3, log=log_of(1, 2))
        learnt(elected, 2, 2)

        elected.request(append(4, (2, 2), (4,)), "reply")

        self.assertEqual(sync(elected).commit_index, 2)

    def test_learn_commit_while_a_snapshot_is_installed(self) -> None:
        """The state machine is being replaced: nothing is committed beside that."""
        follower = server(log=log_of(1, 1, 1, 1), term=1)
        members = Configuration.of_voters("abc")
        request = InstallSnapshotRequest(2, "b", 9, 2, 1, members, 1, ("a",))
        follower.request(request, "reply")
        install = sync(follower).install
        assert install is not None

        self.assertEqual(learnt(follower, 4, 1), 0)
        follower.installed(install)

        self.assertEqual(sync(follower).commit_index, 4)

    def test_learn_commit_at_random(self) -> None:
        """The invariant: only true places commit, in any order of what comes."""
        true = (1, 1, 2, 3, 3, 3, 5)
        for seed in range(200):
            random = Random(seed)
            own = random.randint(0, 4)
            # Entries of term 4, whose leader committed nothing.
            other = [4] * random.randint(0, 3)
            terms = [*true[: min(own, 2)], *other]
            follower = server(log=log_of(*terms), term=5)
            known = 0
            for _ in range(12):
                index = random.randint(1, len(true))
                if random.random() < 0.5:
                    follower.learn_commit(index, true[index - 1])
                else:
                    prev = (index - 1, true[index - 2] if index > 1 else 0)
                    last = random.randint(index, len(true))
                    entries = true[index - 1 : last]
                    follower.request(append(5, prev, entries), "reply")
                commit = sync(follower).commit_index
                self.assertGreaterEqual(commit, known)
                known = commit
                for at in range(1, commit + 1):
                    self.assertEqual(follower.log.term_at(at), true[at - 1], seed)


class Settled(SynchronousTestCase):
    def test_learn_commit_needs_no_leader_to_say_more(self) -> None:
        """The leader's own commit index reaches the same place without a message."""
        told = settled_leader(2)
        follower = server("b", log=log_of(2), term=2)

        self.assertEqual(learnt(follower, told.commit_index, 2), told.commit_index)
