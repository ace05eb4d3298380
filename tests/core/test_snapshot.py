"""Snapshots: sent where they are needed, installed, and the log cut for them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    answer_of,
    append,
    command,
    log_of,
    progress,
    refuse,
    sent,
    server,
    settle,
    settled_leader,
    sync,
    terms_of,
)
from txraft.core.configuration import Configuration
from txraft.core.consensus import Consensus
from txraft.core.messages import (
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    TimeoutNowRequest,
)
from txraft.core.progress import Mode
from txraft.core.ready import (
    Heartbeat,
    Install,
    Ready,
    Refusal,
    Replicate,
    ResetLog,
    SendSnapshot,
    SnapshotMark,
)

MEMBERS = Configuration.of_voters("abcd")


def snapshot(index: int, term: int, leader_term: int = 3) -> InstallSnapshotRequest:
    """Make the request that announces a snapshot up to (*index*, *term*)."""
    return InstallSnapshotRequest(leader_term, "b", index, term, 0, MEMBERS, 2)


def mark_of(request: InstallSnapshotRequest) -> SnapshotMark:
    """Return where the snapshot of *request* ends."""
    return SnapshotMark(
        request.last_log_index,
        request.last_log_term,
        request.configuration,
        request.configuration_index,
    )


def begin(follower: Consensus, request: InstallSnapshotRequest) -> Install:
    """Announce a snapshot and return the order to receive it."""
    follower.request(request, "reply")
    install = sync(follower).install
    assert install is not None
    return install


class Installation(SynchronousTestCase):
    """`InstallSnapshot` at a follower.  Source: Raft paper, figure 13."""

    def test_install_replaces_a_log_that_lacks_its_end(self) -> None:
        """A log that does not hold the snapshot's last entry goes as a whole."""
        for terms in ((1, 1), (1, 1, 1, 1, 1, 1, 1)):
            follower = server(log=log_of(*terms), term=2)
            install = begin(follower, snapshot(5, 2))

            follower.installed(install, mark_of(install.request))
            ready = follower.ready()

            self.assertEqual(ready.reset_log, ResetLog(5, keep_suffix=False))
            self.assertEqual((terms_of(follower), follower.log.last_term), ([], 2))
            self.assertEqual(follower.commit_index, 5)
            self.assertEqual(follower.configuration, MEMBERS)

    def test_install_keeps_what_follows_its_last_entry(self) -> None:
        """A log that holds that entry keeps its later ones."""
        follower = server(log=log_of(1, 1, 2, 2, 3), term=3)
        install = begin(follower, snapshot(4, 2))

        follower.installed(install, mark_of(install.request))
        ready = follower.ready()

        self.assertEqual(ready.reset_log, ResetLog(4, keep_suffix=True))
        self.assertEqual(terms_of(follower), [3])
        self.assertEqual(follower.commit_index, 4)

    def test_install_in_the_batch_of_an_append_leaves_no_stray_entry(self) -> None:
        """Of a replaced log nothing is written afterwards."""
        follower = server(log=log_of(1), term=2)
        install = begin(follower, snapshot(3, 2))
        follower.installing = False
        follower.request(append(3, (1, 1), (1, 1, 1, 1, 1)), "entries")

        follower.installed(install, mark_of(install.request))
        ready = follower.ready()

        self.assertEqual(ready.append, [])
        self.assertEqual(follower.log.last_index, 3)

    def test_install_answers_after_the_log_was_reset(self) -> None:
        """Success says that the follower has all up to there, also after a crash."""
        follower = server(term=2)
        install = begin(follower, snapshot(5, 2))

        follower.installed(install, mark_of(install.request))
        ready = follower.ready()

        self.assertEqual(ready.send, [])
        self.assertEqual(
            ready.after_sync, [("reply", InstallSnapshotResponse(3, True))]
        )

    def test_install_of_what_is_committed_succeeds_without_work(self) -> None:
        """An older or repeated snapshot does not take the state back."""
        follower = server(log=log_of(1, 1, 2), term=3)
        follower.request(append(3, (3, 2), commit=3), "first")
        sync(follower)

        follower.request(snapshot(2, 1), "reply")
        ready = follower.ready()

        self.assertIsNone(ready.install)
        self.assertEqual(
            ready.after_sync, [("reply", InstallSnapshotResponse(3, True))]
        )
        self.assertEqual(terms_of(follower), [1, 1, 2])

    def test_install_that_came_too_late_changes_nothing(self) -> None:
        """What was committed while it arrived stays."""
        follower = server(log=log_of(1, 1, 2), term=3)
        install = begin(follower, snapshot(5, 2))
        follower.commit(3)

        follower.installed(install, SnapshotMark(2, 1, MEMBERS, 2))

        self.assertIsNone(follower.ready().reset_log)
        self.assertEqual(terms_of(follower), [1, 1, 2])

    def test_install_of_an_older_term_refused(self) -> None:
        """A deposed leader installs nothing."""
        follower = server(term=9)

        follower.request(snapshot(5, 2), "reply")
        ready = follower.ready()

        self.assertEqual(answer_of(ready), InstallSnapshotResponse(9, False))
        self.assertIsNone(ready.install)

    def test_install_one_at_a_time(self) -> None:
        """A second one is refused while the first arrives."""
        follower = server(term=3)
        begin(follower, snapshot(5, 2))

        follower.request(snapshot(6, 2), "reply")
        ready = follower.ready()

        self.assertIsInstance(answer_of(ready), Refusal)
        self.assertIsNone(ready.install)

    def test_install_that_failed_is_reported_and_can_be_repeated(self) -> None:
        """The sender learns it, the log stays, the next attempt is welcome."""
        follower = server(log=log_of(1), term=3)
        install = begin(follower, snapshot(5, 2))

        follower.installed(install, None)

        answer = answer_of(sync(follower))
        self.assertEqual(answer, InstallSnapshotResponse(3, False))
        self.assertEqual(terms_of(follower), [1])
        begin(follower, snapshot(5, 2))

    def test_install_that_contradicts_itself_refused(self) -> None:
        """A last entry of a term to come, a membership from behind the end, or none."""
        wrong = [
            snapshot(5, 9),
            InstallSnapshotRequest(3, "b", 5, 2, 0, MEMBERS, 6),
            InstallSnapshotRequest(3, "b", 5, 2, 0, Configuration(), 1),
        ]
        for request in wrong:
            follower = server(term=3)
            follower.request(request, "reply")
            ready = follower.ready()

            self.assertIsInstance(answer_of(ready), Refusal)
            self.assertIsNone(ready.install)

    def test_install_silences_the_follower_as_a_candidate(self) -> None:
        """Not even a transfer makes it campaign before it has its state."""
        follower = server(term=3)
        begin(follower, snapshot(5, 2))

        follower.request(TimeoutNowRequest(), "now")

        self.assertEqual((follower.term, follower.voted_for), (3, None))


class Compaction(SynchronousTestCase):
    """What is left when a prefix of the log goes."""

    def test_compacted_keeps_the_term_at_the_edge(self) -> None:
        """The next entry is still compared with the last compacted one."""
        leading = settled_leader(2, log=log_of(1, 1))
        leading.snapshotted(SnapshotMark(2, 1, leading.configuration, 0))

        leading.compacted(2)

        self.assertEqual((leading.log.base_index, leading.log.base_term), (2, 1))
        self.assertEqual(terms_of(leading), [2])

    def test_restart_after_a_snapshot_begins_with_its_state(self) -> None:
        """What a snapshot holds is committed."""
        restarted = server(
            log=log_of(2, base=(5, 2)), snapshot=SnapshotMark(5, 2, MEMBERS, 3)
        )

        self.assertEqual(restarted.commit_index, 5)
        self.assertEqual(restarted.configuration, MEMBERS)


class Sending(SynchronousTestCase):
    """A leader whose follower needs what is compacted."""

    def setUp(self) -> None:
        self.leading = settled_leader()
        self.leading.propose([command() for _ in range(9)])
        settle(self.leading, "c")
        self.leading.snapshotted(SnapshotMark(8, 1, self.leading.configuration, 0))
        self.leading.compacted(8)
        stream = progress(self.leading, "c").stream
        lagging = Replicate(1, 1, 1, 2, 1, 0, stream)
        refuse(self.leading, "c", lagging, last_log=0, at_once=False)
        self.leading.tick(1)
        settle_heartbeats(self.leading)
        self.leading.tick(1)
        settle_heartbeats(self.leading)

    def known(self) -> object:
        """Return how the follower is served."""
        return progress(self.leading, "c").mode

    def order(self) -> SendSnapshot:
        """Return the order to send a snapshot, as it would be now."""
        return SendSnapshot(1, 8, self.leading.now, progress(self.leading, "c").stream)

    def test_snapshot_is_sent_once(self) -> None:
        """While it is on its way nothing else goes there but heartbeats."""
        self.assertIs(self.known(), Mode.SNAPSHOT)
        self.leading.propose([command()])

        ready = self.leading.ready()

        self.assertEqual(sent(ready, SendSnapshot), [])
        self.assertEqual(sent(ready, Replicate, "c"), [])

    def test_snapshot_answered_goes_on_after_it(self) -> None:
        """The follower has what the snapshot covers, and gets the entry after it."""
        answer = InstallSnapshotResponse(1, True)

        self.leading.response("c", self.order(), answer)

        self.assertEqual(progress(self.leading, "c").match, 8)
        request = sent(self.leading.ready(), Replicate, "c")[0]
        self.assertEqual((request.prev_index, request.prev_term), (8, 1))

    def test_snapshot_refused_is_tried_again_later(self) -> None:
        """A failure waits before the next attempt."""
        self.leading.response("c", self.order(), InstallSnapshotResponse(1, False))
        self.assertEqual(sent(self.leading.ready(), SendSnapshot), [])

        sent_then = self.heartbeat_answered(0)

        self.assertEqual([type(message) for message in sent_then], [SendSnapshot])

    def test_snapshot_unreachable_is_tried_again_later(self) -> None:
        """So does a lost connection."""
        self.leading.unreachable("c", self.order())
        self.assertEqual(sent(self.leading.ready(), SendSnapshot), [])

        sent_then = self.heartbeat_answered(0)

        self.assertEqual([type(message) for message in sent_then], [SendSnapshot])

    def test_snapshot_answer_of_an_earlier_life_does_not_count(self) -> None:
        """Only the answer to the snapshot on its way does."""
        order = self.order()
        stale = SendSnapshot(1, 8, order.sent, order.stream - 1)

        self.leading.response("c", stale, InstallSnapshotResponse(1, True))

        self.assertEqual(progress(self.leading, "c").match, 1)

    def test_snapshot_answer_with_a_newer_term_deposes(self) -> None:
        """A newer term in any answer ends the leadership."""
        answer = InstallSnapshotResponse(7, False)

        self.leading.response("c", self.order(), answer)

        self.assertEqual((self.leading.is_leader, self.leading.term), (False, 7))

    def heartbeat_answered(
        self, last_log: int, installing: bool = False
    ) -> list[object]:
        """Let a while pass in which the follower answers heartbeats, and nothing else.

        Returns: what else it was sent.
        """
        others: list[object] = []
        waiting = progress(self.leading, "c").heartbeat_inflight
        if waiting is not None:
            answer = AppendEntriesResponse(1, last_log, True, installing)
            self.leading.response("c", waiting, answer)
        for _ in range(12):
            self.leading.tick(1)
            for to, message in sync(self.leading).send:
                if to == "c" and not isinstance(message, Heartbeat):
                    others.append(message)
                if isinstance(message, Heartbeat):
                    mine = to == "c"
                    answer = AppendEntriesResponse(
                        1, last_log if mine else 11, True, mine and installing
                    )
                    self.leading.response(str(to), message, answer)
        return others

    def test_snapshot_is_not_offered_to_one_that_installs(self) -> None:
        """Who says that it installs a snapshot is sent nothing, until it has done."""
        self.leading.unreachable("c", self.order())
        self.assertEqual(self.heartbeat_answered(0, installing=True), [])

        for _ in range(100):
            self.leading.tick(1)
            ready = sync(self.leading)
            settle_answers(self.leading, ready, installing="c")
            self.assertEqual(sent(ready, SendSnapshot, "c"), [])
            self.assertEqual(sent(ready, Replicate, "c"), [])

    def test_snapshot_that_arrived_though_its_answer_did_not(self) -> None:
        """The end of the log that the follower names is tried first."""
        self.leading.unreachable("c", self.order())
        self.heartbeat_answered(0, installing=True)

        [probe] = self.heartbeat_answered(8)

        assert isinstance(probe, Replicate)
        self.assertEqual(probe.prev_index, 8)

    def test_snapshot_is_sent_when_what_the_follower_has_is_another_log(self) -> None:
        """The end that it names is tried once."""
        self.leading.unreachable("c", self.order())
        [probe] = self.heartbeat_answered(9)
        assert isinstance(probe, Replicate)

        refuse(self.leading, "c", probe, last_log=9)
        refuse(self.leading, "c", sent(sync(self.leading), Replicate, "c")[0], 9)
        ready = self.leading.ready()

        self.assertEqual(len(sent(ready, SendSnapshot, "c")), 1)

    def test_snapshot_that_fails_is_sent_ever_less_often(self) -> None:
        """The wait doubles up to a bound, and ends when the follower was away."""
        self.heartbeat_answered(0)
        self.leading.unreachable("c", self.order())
        attempts = []
        for tick in range(2000):
            ready = sync(self.leading)
            for order in sent(ready, SendSnapshot, "c"):
                attempts.append(tick)
                self.leading.unreachable("c", order)
            settle_answers(self.leading, ready)
            self.leading.tick(1)
        waits = [later - former for former, later in pairwise(attempts)]

        self.assertEqual(waits, sorted(waits))
        self.assertGreaterEqual(waits[-1], 10 * 10)
        self.assertLessEqual(waits[-1], 10 * 20 + 1)

    def test_snapshot_that_fails_waits_for_a_heartbeat(self) -> None:
        """It may be that it is being installed all the same."""
        self.leading.unreachable("c", self.order())

        for _ in range(8):
            self.leading.tick(1)
            self.assertEqual(sent(sync(self.leading), SendSnapshot), [])

    def test_log_behind_a_snapshot_on_its_way_is_kept(self) -> None:
        """Else the follower would need another one at once."""
        self.leading.propose([command() for _ in range(20)])
        settle(self.leading, "c")
        self.heartbeat_answered(0)

        self.assertEqual(self.leading.may_compact_to(25), 8)
        self.leading.response("c", self.order(), InstallSnapshotResponse(1, True))
        self.assertEqual(self.leading.may_compact_to(25), 8)
        while requests := sent(sync(self.leading), Replicate, "c"):
            for request in requests:
                accept(self.leading, "c", request)
        self.assertEqual(self.leading.may_compact_to(25), 25)

    def test_log_behind_a_snapshot_is_kept_within_a_bound(self) -> None:
        """Not for a follower that takes for ever, and not for one that is gone."""
        leading = self.leading
        leading.propose([command() for _ in range(20)])
        settle(leading, "c")
        self.heartbeat_answered(0)
        last = leading.log.last_index

        leading.options = replace(leading.options, max_kept_entries=5)
        self.assertEqual(leading.may_compact_to(25), last - 5)
        leading.options = replace(leading.options, max_kept_entries=1000)
        settle(leading, "c", ticks=300)
        self.assertEqual(leading.may_compact_to(25), 25)


def settle_answers(leading: Consensus, ready: Ready, installing: str = "") -> None:
    """Answer the heartbeats of *ready*, and entries but those for the laggard."""
    for to, message in ready.send:
        if isinstance(message, Heartbeat):
            answer = AppendEntriesResponse(1, 0, True, to == installing)
            leading.response(str(to), message, answer)
        elif isinstance(message, Replicate) and to != "c":
            accept(leading, str(to), message)


def settle_heartbeats(leading: Consensus) -> None:
    """Answer what *leading* sends, and leave the snapshot on its way."""
    ready = sync(leading)
    for to, message in ready.send:
        if isinstance(message, Heartbeat) or (
            isinstance(message, Replicate) and to != "c"
        ):
            accept(leading, str(to), message)
