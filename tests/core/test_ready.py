"""The parts of a `Ready`, and the numbers of its writes.

Source: Raft dissertation §10.2.1.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    append,
    candidate,
    command,
    entries_of,
    leader,
    log_of,
    request_vote,
    server,
    settled_leader,
    sync,
)
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    InstallSnapshotRequest,
    TimeoutNowRequest,
)
from txraft.core.ready import HardState, Heartbeat, Ready, Refusal, Replicate


class Outboxes(SynchronousTestCase):
    """Durable before promised."""

    def test_send_holds_a_leaders_own_entries(self) -> None:
        """A leader writes to its disk in parallel with sending."""
        leading = settled_leader()
        leading.propose([command()])

        ready = leading.ready()

        self.assertTrue(ready.has_write)
        self.assertEqual({type(m) for _, m in ready.send}, {Replicate})
        self.assertEqual(ready.after_sync, [])

    def test_send_holds_rejections(self) -> None:
        """What promises nothing leaves although a write is under way."""
        follower = server(term=3, log=log_of(1))
        follower.request(append(5, (9, 5)), "behind")
        follower.request(append(2, (1, 1)), "stale")
        follower.request(request_vote(5, (0, 0), sender="c"), "vote")

        ready = follower.ready()

        self.assertTrue(ready.has_write)
        self.assertEqual([to for to, _ in ready.send], ["behind", "stale", "vote"])

    def test_after_sync_holds_success_for_entries(self) -> None:
        """Entries are on disk before they are confirmed."""
        follower = server(term=1)
        follower.request(append(1, (0, 0), (1,)), "reply")

        ready = follower.ready()

        self.assertEqual(ready.send, [])
        answer = AppendEntriesResponse(1, 0, True)
        self.assertEqual(ready.after_sync, [("reply", answer)])

    def test_after_sync_of_a_duplicate_waits_for_the_first_write(self) -> None:
        """Already in the log is not already on disk."""
        follower = server(term=1)
        follower.request(append(1, (0, 0), (1,)), "one")
        first = follower.ready()
        follower.request(append(1, (0, 0), (1,)), "two")

        second = follower.ready()

        self.assertFalse(second.has_write)
        self.assertEqual(second.write_number, first.write_number)
        self.assertEqual([to for to, _ in second.after_sync], ["two"])

    def test_commit_index_may_pass_what_is_synced_here(self) -> None:
        """A quorum has it, whether this disk is done or not."""
        follower = server(term=1)
        follower.request(append(1, (0, 0), (1,), commit=1), "reply")

        self.assertEqual(follower.ready().commit_index, 1)

    def test_ready_is_handed_out_once(self) -> None:
        """The next one holds only what is new."""
        campaigner = candidate(2)
        campaigner.ready()

        again = campaigner.ready()

        expected = Ready(write_number=1, commit_index=0)
        self.assertEqual(again, expected)


class WriteNumbers(SynchronousTestCase):
    """Writes are known by number."""

    def test_write_number_rises_with_each_write(self) -> None:
        """A Ready without a write carries the number of the last one."""
        follower = server(term=1)
        numbers = []
        for request in (
            append(1, (0, 0), (1,)),
            append(1, (1, 1)),
            append(1, (1, 1), (1,)),
        ):
            follower.request(request, "reply")
            ready = follower.ready()
            numbers.append((ready.write_number, ready.has_write))

        self.assertEqual(numbers, [(1, True), (1, False), (2, True)])

    def test_synced_of_an_overwritten_entry_does_not_count(self) -> None:
        """A-B-A: index 2 is written, truncated, and written again by a new leader.

        That the first of the two writes is durable says nothing of the second.
        """
        member = leader(1, voters="abc")
        sync(member)
        member.propose([command()])
        slow = member.ready()
        member.request(append(2, (1, 1), (2,)), "reply")
        member.ready()
        member.become_candidate()
        ballot = member.ready()
        member.synced(slow.write_number)
        self.assertFalse(member.state_is_durable)
        member.synced(ballot.write_number)
        self.assertTrue(member.state_is_durable)
        self.assertEqual(member.oldest_write_age, 0)

    def test_synced_counts_for_the_leader_up_to_that_write(self) -> None:
        """Of three writes two are durable."""
        alone = settled_leader(voters="a")
        writes = []
        for _ in range(3):
            alone.propose([command()])
            writes.append(alone.ready().write_number)

        alone.synced(writes[1])

        self.assertEqual(alone.commit_index, 3)

    def test_oldest_write_age_is_that_of_the_oldest(self) -> None:
        """It tells how long the disk has been silent."""
        alone = settled_leader(voters="a")
        alone.propose([command()])
        first = alone.ready()
        alone.tick(5)
        alone.propose([command()])
        alone.ready()
        alone.tick(2)
        self.assertEqual(alone.oldest_write_age, 7)

        alone.synced(first.write_number)

        self.assertEqual(alone.oldest_write_age, 2)


class Cluster(SynchronousTestCase):
    """The identity that the first leader gives to a cluster."""

    def test_open_tags_a_cluster_without_identity(self) -> None:
        """The tag counts when its entry is committed, and is written then."""
        alone = leader(1, voters="a", tags_cluster=True)
        ready = alone.ready()
        tag = ready.append[0].cluster
        assert tag is not None
        self.assertIsNone(alone.cluster)

        alone.synced(ready.write_number)

        self.assertEqual(alone.ready().hard_state, HardState(1, "a", tag))

    def test_commit_takes_the_first_of_several_tags(self) -> None:
        """Leaders that came before each other's tags were committed agree."""
        follower = server(term=2)
        entries = entries_of(1, 1, 2)
        for entry, tag in zip(entries, (b"first", b"second"), strict=True):
            entry.cluster = tag

        follower.request(AppendEntriesRequest(2, "b", 0, 0, entries, 2), "reply")

        self.assertEqual(follower.cluster, b"first")

    def test_install_snapshot_brings_the_identity(self) -> None:
        """The entry with the tag is in the snapshot, and comes no more.

        It is on the disk before the snapshot is in place. A server that led without it
        would tag the cluster again, and the others would refuse it.
        """
        follower = server(term=1)
        members = follower.configuration
        header = Header(cluster=b"ours")

        follower.request(
            InstallSnapshotRequest(1, "b", 9, 1, 0, members, 1, header=header), "reply"
        )

        state = follower.ready().hard_state
        assert state is not None
        self.assertEqual(state.cluster, b"ours")

    def test_truncated_tag_is_forgotten(self) -> None:
        """A tag that was never committed names nothing."""
        follower = server(term=1)
        tagged = Entry(1, 1, LogType.NOOP, cluster=b"mine")
        follower.request(AppendEntriesRequest(1, "b", 0, 0, [tagged]), "one")

        follower.request(append(2, (0, 0), (2,), commit=1), "two")

        self.assertIsNone(follower.cluster)

    def test_request_of_another_cluster_is_refused(self) -> None:
        """Two clusters that meet at one address do not mix."""
        member = server(term=1)
        member.cluster = b"ours"
        header = Header(cluster=b"theirs")
        for request in (
            AppendEntriesRequest(9, "b", header=header),
            TimeoutNowRequest(header),
        ):
            member.request(request, "reply")
            ((_, answer),) = member.ready().send

            self.assertIsInstance(answer, Refusal)
            self.assertEqual(member.term, 1)


class Batches(SynchronousTestCase):
    """Many inputs, one `Ready`."""

    def test_ready_after_many_inputs_is_one_write(self) -> None:
        """Requests of one turn share one write and keep their order."""
        follower = server(term=1)
        for index in range(10):
            follower.request(append(1, (index, min(index, 1)), (1,)), index)

        ready = follower.ready()

        self.assertEqual([e.index for e in ready.append], list(range(1, 11)))
        self.assertEqual([to for to, _ in ready.after_sync], list(range(10)))
        self.assertEqual(ready.write_number, 1)

    def test_ready_of_a_leader_that_stepped_down_keeps_its_entries(self) -> None:
        """What was appended stays in the log, for the next leader to judge."""
        leading = settled_leader()
        leading.propose([command()])
        leading.request(AppendEntriesRequest(5, "b"), "reply")

        ready = leading.ready()

        self.assertEqual([e.index for e in ready.append], [2])
        self.assertEqual([m for _, m in ready.send if isinstance(m, Heartbeat)], [])
