"""Progress: a leader's knowledge of one follower."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.progress import Mode, Progress


class Progresses(SynchronousTestCase):
    """`Progress`, step by step."""

    def test_accepted_never_moves_back(self) -> None:
        """A late answer lowers neither match nor next."""
        progress = Progress(next=10, stream=1, contact=0)

        progress.accepted(20)
        progress.accepted(5)

        self.assertEqual((progress.match, progress.next), (20, 21))
        self.assertIs(progress.mode, Mode.REPLICATE)

    def test_refused_steps_back_twice_as_far_each_time(self) -> None:
        """A follower that has much of another leader's is found in few steps."""
        progress = Progress(next=1000, stream=1, contact=0)
        seen = []
        for _ in range(5):
            progress.refused(last_log=5000)
            seen.append(progress.next)

        self.assertEqual(seen, [999, 997, 993, 985, 969])

    def test_refused_follows_the_hint_down_not_up(self) -> None:
        """A short log is reached at once; a long one gives no reason to go on."""
        progress = Progress(next=1000, stream=1, contact=0)
        progress.refused(last_log=10)
        self.assertEqual(progress.next, 11)
        progress.refused(last_log=10**9)
        self.assertEqual(progress.next, 9)

    def test_refused_stops_after_match(self) -> None:
        """next > match, whatever a follower says."""
        progress = Progress(next=10, stream=1, contact=0, match=7)

        for _ in range(9):
            progress.refused(last_log=0)

        self.assertEqual(progress.next, 8)

    def test_restart_begins_at_the_first_index_lost(self) -> None:
        """What was on its way is sent again, and what is known to be there is not."""
        progress = Progress(next=50, stream=1, contact=0, match=20, inflight=2)

        progress.restart(stream=2, unanswered=30)

        self.assertEqual(
            (progress.next, progress.inflight, progress.stream), (30, 0, 2)
        )
        self.assertIs(progress.mode, Mode.PROBE)

    def test_failed_waits_longer_each_time_up_to_a_bound(self) -> None:
        """Back-off doubles and ends at the longest wait."""
        progress = Progress(next=1, stream=1, contact=0)
        waits = []
        for _ in range(6):
            progress.failed(now=100, longest_wait=10)
            waits.append(progress.wait_until - 100)

        self.assertEqual(waits, [1, 2, 4, 8, 10, 10])
