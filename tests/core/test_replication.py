"""A leader sends its log: windows, repair, and the worth of a late answer."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    append,
    command,
    leader,
    log_of,
    progress,
    refuse,
    sent,
    server,
    settled_leader,
    sync,
)
from txraft.core.consensus import Consensus
from txraft.core.messages import (
    AppendEntriesResponse,
)
from txraft.core.progress import Mode
from txraft.core.ready import Heartbeat, Replicate, SendSnapshot


class Pipelining(SynchronousTestCase):
    """How much is on its way.  Source: Raft dissertation §10.2.1."""

    def test_replicate_one_probe_until_the_first_success(self) -> None:
        """Nothing more is sent to a follower whose log is not known."""
        leading = leader(1)
        sync(leading)
        leading.propose([command()])

        self.assertEqual(sent(leading.ready(), Replicate), [])

    def test_replicate_up_to_the_window(self) -> None:
        """Later requests do not wait for earlier answers, up to a limit."""
        leading = settled_leader(max_append_entries=2, max_inflight_requests=3)
        leading.propose([command() for _ in range(20)])

        ranges = [(m.prev_index, m.last) for m in sent(sync(leading), Replicate, "b")]

        self.assertEqual(ranges, [(1, 3), (3, 5), (5, 7)])
        self.assertEqual(sent(leading.ready(), Replicate, "b"), [])

    def test_replicate_goes_on_with_each_answer(self) -> None:
        """An answer makes room for one request."""
        leading = settled_leader(max_append_entries=2, max_inflight_requests=2)
        leading.propose([command() for _ in range(20)])
        first = sent(sync(leading), Replicate, "b")

        accept(leading, "b", first[0])

        ranges = [(m.prev_index, m.last) for m in sent(leading.ready(), Replicate, "b")]
        self.assertEqual(ranges, [(5, 7)])

    def test_replicate_from_disk_up_to_the_window(self) -> None:
        """What is not in memory goes out as what is, but may be cut shorter."""
        leading = self.reading_leader(2)

        messages = sent(sync(leading), Replicate, "b")

        ranges = [(m.prev_index, m.last, m.may_shorten) for m in messages]
        self.assertEqual(ranges, [(1, 5, True), (5, 9, True)])

    def test_replicate_alone_after_one_that_was_cut_short(self) -> None:
        """What was sent behind it is refused; the next one goes alone."""
        leading = self.reading_leader(2)
        first, second = sent(sync(leading), Replicate, "b")

        accept(leading, "b", replace(first, last=3))
        self.assertEqual(sent(leading.ready(), Replicate, "b"), [])
        refuse(leading, "b", second, last_log=3)
        [third] = sent(leading.ready(), Replicate, "b")
        accept(leading, "b", replace(third, last=5))

        ranges = [(m.prev_index, m.last) for m in sent(leading.ready(), Replicate, "b")]
        self.assertEqual((third.prev_index, ranges), (3, [(5, 9)]))

    def test_replicate_on_from_the_end_of_what_was_cut_short(self) -> None:
        """Where nothing else is on its way nothing has to be refused."""
        leading = self.reading_leader(1)
        [first] = sent(sync(leading), Replicate, "b")

        accept(leading, "b", replace(first, last=3))

        ranges = [(m.prev_index, m.last) for m in sent(leading.ready(), Replicate, "b")]
        self.assertEqual(ranges, [(3, 7)])

    def test_replicate_up_to_the_window_again_after_a_whole_one(self) -> None:
        """One that holds all it should tells that entries are small again."""
        leading = self.reading_leader(2)
        first, second = sent(sync(leading), Replicate, "b")
        accept(leading, "b", replace(first, last=3))
        refuse(leading, "b", second, last_log=3)
        [third] = sent(leading.ready(), Replicate, "b")

        accept(leading, "b", third)

        ranges = [(m.prev_index, m.last) for m in sent(leading.ready(), Replicate, "b")]
        self.assertEqual(ranges, [(7, 11), (11, 15)])

    def reading_leader(self, window: int) -> Consensus:
        """Return a leader that has nothing in memory, and much to send."""
        leading = settled_leader(max_append_entries=4, max_inflight_requests=window)
        leading.resident_from = 100
        leading.propose([command() for _ in range(20)])
        return leading

    def test_replicate_as_many_as_fit(self) -> None:
        """The shell tells how many entries make a message."""
        leading = settled_leader()
        leading.fit = lambda first, last: min(last, first + 2)
        leading.propose([command() for _ in range(10)])

        ranges = [(m.prev_index, m.last) for m in sent(sync(leading), Replicate, "b")]

        self.assertEqual(ranges, [(1, 4), (4, 7)])

    def test_response_refused_in_the_pipeline_begins_again(self) -> None:
        """What was sent after a refused request is void, and so are its answers."""
        leading = settled_leader(max_append_entries=2, max_inflight_requests=2)
        leading.propose([command() for _ in range(4)])
        first, second = sent(sync(leading), Replicate, "b")

        refuse(leading, "b", first, last_log=3, at_once=False)
        accept(leading, "b", second)

        known = progress(leading, "b")
        self.assertEqual((known.match, known.next, known.mode), (1, 2, Mode.PROBE))
        self.assertEqual(known.inflight, 0)

    def test_unreachable_begins_again_at_the_first_lost(self) -> None:
        """Requests after a lost one are void; they are sent again after a wait."""
        leading = settled_leader(max_append_entries=2, max_inflight_requests=2)
        leading.propose([command() for _ in range(4)])
        first, second = sent(sync(leading), Replicate, "b")

        leading.unreachable("b", first)
        leading.unreachable("b", second)
        self.assertEqual(sent(leading.ready(), Replicate, "b"), [])
        leading.tick()

        again = sent(leading.ready(), Replicate, "b")
        self.assertEqual([(m.prev_index, m.last) for m in again], [(1, 3)])
        self.assertEqual(progress(leading, "b").failures, 1)

    def test_unreachable_of_an_earlier_leadership_means_nothing(self) -> None:
        """A lost request of another term says nothing of this one."""
        leading = settled_leader(3)
        before = repr(progress(leading, "b"))
        stream = progress(leading, "b").stream

        leading.unreachable("b", Replicate(1, 0, 0, 1, 0, 0, stream))
        leading.unreachable("b", SendSnapshot(1, 1, 0, stream))

        self.assertEqual(repr(progress(leading, "b")), before)

    def test_response_of_an_earlier_leadership_does_not_count(self) -> None:
        """An answer to a request of another term tells only its term."""
        leading = leader(5)
        sync(leading)
        stream = progress(leading, "b").stream

        stale = Replicate(3, 0, 0, 1, 0, 0, stream)
        leading.response("b", stale, AppendEntriesResponse(5, 1, True))

        self.assertEqual(progress(leading, "b").match, 0)
        self.assertEqual(leading.commit_index, 0)


class CutOff(SynchronousTestCase):
    """Requests that get no answer while heartbeats do: too large for the receiver."""

    def attempts(self, leading: Consensus, takes: int, ticks: int) -> list[int]:
        """Serve b, who hangs up on requests of more than *takes* entries; list what it
        was sent, by number of entries."""
        sizes = []
        for _ in range(ticks):
            ready = sync(leading)
            for to, message in ready.send:
                if not isinstance(message, Replicate) or to != "b":
                    if isinstance(message, Replicate | Heartbeat):
                        accept(leading, str(to), message)
                    continue
                size = message.last - message.prev_index
                sizes += [size] if size else []
                if size > takes:
                    leading.unreachable("b", message, closed=True)
                else:
                    accept(leading, "b", message)
            leading.tick()
        return sizes

    def test_cut_off_is_sent_in_halves(self) -> None:
        """Down to what is taken; never again unchanged."""
        leading = settled_leader(max_append_entries=64)
        leading.propose([command() for _ in range(64)])

        sizes = self.attempts(leading, takes=20, ticks=40)

        self.assertEqual(sizes[:6], [64, 32, 16, 16, 16, 16])
        self.assertEqual(progress(leading, "b").match, leading.log.last_index)

    def test_cut_off_grows_again_but_ever_less_often(self) -> None:
        """A follower that was restarted with other limits gets whole requests again."""
        leading = settled_leader(max_append_entries=64, max_inflight_requests=1)
        leading.propose([command() for _ in range(60_000)])

        sizes = self.attempts(leading, takes=20, ticks=400)
        self.assertLess(len([size for size in sizes if size > 20]), 8)
        again = self.attempts(leading, takes=1000, ticks=1500)

        self.assertIn(64, again)
        self.assertEqual(progress(leading, "b").max_entries, 0)

    def test_cut_off_of_a_follower_that_is_away_means_nothing(self) -> None:
        """A server that stops hangs up, too."""
        leading = settled_leader(max_append_entries=64)
        leading.propose([command() for _ in range(64)])
        leading.tick(3)
        ready = sync(leading)
        [request] = sent(ready, Replicate, "b")
        leading.unreachable("b", sent(ready, Heartbeat, "b")[0])

        leading.unreachable("b", request, closed=True)

        self.assertEqual(progress(leading, "b").max_entries, 0)

    def test_cut_off_alone_is_named_and_seldom_tried(self) -> None:
        """One entry that is too large is told of once, and does not busy anyone."""
        leading = settled_leader(max_append_entries=64)
        leading.propose([command(), command()])
        named, attempts = [], 0
        for _ in range(1000):
            ready = sync(leading)
            named += ready.undeliverable
            for to, message in ready.send:
                if isinstance(message, Replicate) and to == "b":
                    attempts += 1
                    leading.unreachable("b", message, closed=True)
                elif isinstance(message, Replicate | Heartbeat):
                    accept(leading, str(to), message)
            leading.tick()

        self.assertEqual(named, [("b", 2)])
        self.assertEqual(progress(leading, "b").undeliverable, 2)
        self.assertLess(attempts, 20)

    def test_undeliverable_no_more_once_it_is_taken(self) -> None:
        """And the follower that came back with other limits need not wait long."""
        leading = settled_leader(max_append_entries=64)
        leading.propose([command(), command()])
        self.attempts(leading, takes=0, ticks=600)
        self.assertEqual(progress(leading, "b").undeliverable, 2)
        heartbeat = progress(leading, "b").heartbeat_inflight
        while heartbeat is None:
            leading.tick()
            sync(leading)
            heartbeat = progress(leading, "b").heartbeat_inflight
        leading.unreachable("b", heartbeat)

        self.attempts(leading, takes=64, ticks=10)

        self.assertEqual(progress(leading, "b").undeliverable, 0)
        self.assertEqual(progress(leading, "b").match, leading.log.last_index)


class Repair(SynchronousTestCase):
    """Finding where two logs part.  Source: Raft dissertation §3.5."""

    def round_trips(self, leading: Consensus, follower: Consensus) -> int:
        """Exchange single requests until *follower* has the leader's log."""
        trips = 0
        while progress(leading, "b").match < leading.log.last_index:
            request = sent(sync(leading), Replicate, "b")[0]
            terms = [
                leading.log.term_at(i) or 0
                for i in range(request.prev_index + 1, request.last + 1)
            ]
            prev = (request.prev_index, request.prev_term)
            follower.request(append(request.term, prev, terms, sender="a"), "reply")
            ready = sync(follower)
            (answer,) = [m for _, m in (*ready.send, *ready.after_sync)]
            assert isinstance(answer, AppendEntriesResponse)
            leading.response("b", request, answer)
            trips += 1
        return trips

    def test_refused_of_50000_divergent_entries_in_20_trips(self) -> None:
        """A follower with a long log of another leader is found in a few trips."""
        ours, theirs = log_of(1), log_of(1)
        ours.append(3, 50_000)
        theirs.append(2, 50_000)
        leading = leader(4, log=ours, max_append_entries=1 << 20)
        follower = server("b", log=theirs, term=3)

        trips = self.round_trips(leading, follower)

        self.assertLessEqual(trips, 20)
        self.assertEqual(follower.log.runs, leading.log.runs)

    def test_refused_with_a_short_log_in_two_trips(self) -> None:
        """The answer's last index leads straight to a follower that lags."""
        ours = log_of(1)
        ours.append(1, 50_000)
        leading = leader(4, log=ours, max_append_entries=1 << 20)

        self.assertEqual(self.round_trips(leading, server("b", log=log_of(1, 1))), 2)

    def test_refused_without_hurry_waits(self) -> None:
        """A refusal that does not speak of the previous entry asks for patience."""
        leading = leader(1, log=log_of(1, 1, 1))
        request = sent(sync(leading), Replicate, "b")[0]

        refuse(leading, "b", request, last_log=1, at_once=False)

        self.assertEqual(sent(leading.ready(), Replicate, "b"), [])
        leading.tick()
        self.assertEqual(len(sent(leading.ready(), Replicate, "b")), 1)

    def test_refused_by_one_that_lost_its_disk_does_not_spin(self) -> None:
        """Who denies what it has confirmed is asked again only after a wait."""
        leading = settled_leader(1, log=log_of(1, 1))
        leading.propose([command()])
        messages = 0
        for _ in range(100):
            for request in sent(sync(leading), Replicate, "b"):
                messages += 1
                refuse(leading, "b", request, last_log=0)

        self.assertLess(messages, 5)

    def test_refused_by_one_that_has_forgotten(self) -> None:
        """Who denies an entry that it has acknowledged counts for nothing from then on.

        Else a quorum could be of those that have it and one that had it.
        """
        leading = settled_leader(1, log=log_of(1, 1))
        leading.propose([command()])
        request = sent(sync(leading), Replicate, "b")[0]
        leading.unreachable("b", request, closed=True)
        leading.tick(2)
        again = sent(leading.ready(), Replicate, "b")[0]

        refuse(leading, "b", again, last_log=1)

        self.assertEqual(leading.ready().forgetful, ["b"])
        self.assertEqual(progress(leading, "b").match, 0)

    def test_refused_before_it_was_acknowledged(self) -> None:
        """A denial may be older than the acknowledgement that has overtaken it."""
        leading = settled_leader(max_append_entries=2, max_inflight_requests=2)
        leading.propose([command() for _ in range(4)])
        first, second = sent(sync(leading), Replicate, "b")
        accept(leading, "b", first)

        refuse(leading, "b", second, last_log=1)

        self.assertEqual(leading.ready().forgetful, [])
        self.assertEqual(progress(leading, "b").match, first.last)

    def test_refused_by_one_that_lags(self) -> None:
        """Who was never heard to have an entry has forgotten nothing by denying it."""
        leading = leader(1, log=log_of(1, 1, 1))
        request = sent(sync(leading), Replicate, "b")[0]

        refuse(leading, "b", request, last_log=1)

        self.assertEqual(leading.ready().forgetful, [])


class Window(SynchronousTestCase):
    """The window, seen over a long exchange."""

    def test_window_is_never_exceeded_and_always_refilled(self) -> None:
        """With answers in order, 200 entries arrive in order without a gap."""
        leading = settled_leader(max_append_entries=3, max_inflight_requests=4)
        leading.propose([command() for _ in range(200)])
        inflight: deque[Replicate] = deque()
        expected = 1
        while progress(leading, "b").match < 201:
            inflight.extend(sent(sync(leading), Replicate, "b"))
            self.assertLessEqual(len(inflight), 4)
            request = inflight.popleft()
            self.assertEqual(request.prev_index, expected)
            expected = request.last
            accept(leading, "b", request)

        self.assertEqual(leading.commit_index, 201)
