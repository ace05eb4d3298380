"""Levels of the state machine: a leader's knowledge of them, and activation."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    command,
    give_vote,
    membership,
    progress,
    sent,
    server,
    settled_leader,
    sync,
)
from txraft.core.configuration import Configuration, Server, Suffrage
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Header,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.progress import NO_LEVELS
from txraft.core.ready import Heartbeat, Refusal, Replicate, SendSnapshot


def of_level(level: int = 1, **state: object) -> Consensus:
    """Make a settled leader that understands *level* and has applied all of its log."""
    return settled_leader(level=level, **state)


def due(leader: Consensus) -> int:
    return leader.level_due(leader.log.last_index)


def heartbeat(leader: Consensus, peer: str) -> Heartbeat:
    """Let time pass until *leader* sends a heartbeat to *peer*, and return that.

    The others answer theirs as before.
    """
    for _ in range(5):
        leader.tick()
        found = None
        for to, message in sync(leader).send:
            if isinstance(message, Heartbeat) and to == peer:
                found = message
            elif isinstance(message, Heartbeat):
                level = progress(leader, str(to)).level
                told = None if level == NO_LEVELS else level
                tell(leader, str(to), told, message)
        if found is not None:
            return found
    raise AssertionError(f"no heartbeat to {peer}")


def tell(
    leader: Consensus,
    peer: str,
    level: int | None,
    request: Replicate | Heartbeat | SendSnapshot | None = None,
) -> None:
    """Have *peer* announce *level* in its answer to *request*, or to a heartbeat."""
    request = request or heartbeat(leader, peer)
    answer = AppendEntriesResponse(leader.term, 0, True, header=Header(3, level=level))
    leader.response(peer, request, answer)


def tell_all(leader: Consensus, level: int | None) -> None:
    for address in leader.configuration.addresses:
        if address != leader.address:
            tell(leader, address, level)


def activation() -> Entry:
    return Entry(0, 0, LogType.NOOP, b"1")


class Due(SynchronousTestCase):
    """When a level is to be activated."""

    def test_level_due_when_all_have_announced(self) -> None:
        leader = of_level(2)
        tell(leader, "b", 2)
        self.assertEqual(due(leader), 0)
        tell(leader, "c", 3)
        self.assertEqual(due(leader), 2)

    def test_level_due_is_the_lowest(self) -> None:
        """What the others understand can be active before what the leader does."""
        leader = of_level(3)
        tell(leader, "b", 1)
        tell(leader, "c", 2)
        self.assertEqual(due(leader), 1)

    def test_level_due_counts_nonvoters(self) -> None:
        """They apply the same entries."""
        servers = [Server(a, a) for a in "abc"] + [Server("d", "d", Suffrage.NONVOTER)]
        leader = of_level(configuration=Configuration(tuple(servers)))
        for peer in "bc":
            tell(leader, peer, 1)
        self.assertEqual(due(leader), 0)
        tell(leader, "d", 1)
        self.assertEqual(due(leader), 1)

    def test_level_due_counts_who_was_just_added(self) -> None:
        """The configuration in force counts, committed or not."""
        leader = of_level()
        tell_all(leader, 1)
        leader.change_configuration(membership("a", "b", "c", "d"))
        self.assertEqual(due(leader), 0)

    def test_level_due_not_before_an_own_entry_is_applied(self) -> None:
        """What earlier leaders activated is not known before."""
        leader = of_level()
        tell_all(leader, 1)
        last = leader.log.last_index
        self.assertEqual(leader.level_due(last - 1), 0)
        self.assertIsNone(leader.level_in_log(last - 1))
        self.assertEqual(leader.level_due(last), 1)

    def test_level_due_once(self) -> None:
        """Not again while its activation is in the log, nor when it is active."""
        leader = of_level()
        tell_all(leader, 1)
        leader.append_activation(activation(), 1)
        self.assertEqual(due(leader), 0)
        self.assertEqual(leader.level_in_log(leader.log.last_index), 1)

        again = of_level(term=2)
        again.activated(1)
        tell_all(again, 1)
        self.assertEqual(due(again), 0)

    def test_activate_in_a_transfer(self) -> None:
        """An activation that was not appended is due again."""
        leader = of_level()
        tell_all(leader, 1)
        leader.transfer("b")
        leader.append_activation(activation(), 1)
        self.assertEqual(due(leader), 1)

    def test_level_due_for_a_follower(self) -> None:
        self.assertEqual(server(level=1).level_due(10), 0)


class Announcements(SynchronousTestCase):
    """What a leader takes an answer's level for."""

    def test_newest_counts(self) -> None:
        """A member that was set back counts with what it understands now."""
        leader = of_level()
        tell_all(leader, 1)
        tell(leader, "c", 0)
        self.assertEqual(due(leader), 0)

    def test_overtaken_answer(self) -> None:
        """It may be of a process that has been replaced since."""
        leader = of_level()
        tell(leader, "b", 1)
        leader.propose([command()])
        [early] = sent(sync(leader), Replicate, "c")
        tell(leader, "c", None)
        tell(leader, "c", 1, early)
        self.assertEqual(progress(leader, "c").level, NO_LEVELS)

    def test_two_answers_in_one_tick(self) -> None:
        """Which was first is not known, so the lower one counts."""
        for levels in ((1, 0), (0, 1)):
            leader = of_level()
            leader.propose([command()])
            first = heartbeat(leader, "c")
            leader.propose([command()])
            second = [
                m for m in sent(leader.ready(), Replicate, "c") if m.sent == leader.now
            ]
            for request, level in zip((first, second[0]), levels, strict=True):
                tell(leader, "c", level, request)
            self.assertEqual(progress(leader, "c").level, 0)

    def test_broken_connection(self) -> None:
        """Whoever is started there next may understand less."""
        leader = of_level()
        tell_all(leader, 1)
        leader.unreachable("c", heartbeat(leader, "c"))
        self.assertIsNone(progress(leader, "c").level)
        self.assertEqual(due(leader), 0)
        tell(leader, "c", 1)
        self.assertEqual(due(leader), 1)

    def test_earlier_membership(self) -> None:
        """An answer from before it was removed and added again is another server's."""
        leader = of_level()
        tell(leader, "b", 1)
        early = heartbeat(leader, "c")
        leader.change_configuration(membership("a", "b"))
        commit_by_b(leader)
        leader.change_configuration(membership("a", "b", "c"))
        tell(leader, "c", 1, early)
        self.assertIsNone(progress(leader, "c").level)
        self.assertEqual(due(leader), 0)

    def test_votes_announce(self) -> None:
        """A leader knows from the start what its voters have announced with them."""
        candidate = server(level=1, term=0)
        candidate.become_candidate()
        sync(candidate)
        request = RequestVoteRequest(1, "a", 0, 0)
        vote = RequestVoteResponse(1, True, header=Header(3, level=2))
        candidate.response("b", request, vote)
        self.assertEqual(progress(candidate, "b").level, 2)
        self.assertIsNone(progress(candidate, "c").level)

    def test_votes_without(self) -> None:
        """A vote that announces nothing is of a server without levels."""
        candidate = server(level=1, term=0)
        candidate.become_candidate()
        sync(candidate)
        give_vote(candidate, "b")
        self.assertEqual(progress(candidate, "b").level, NO_LEVELS)

    def test_forgotten_with_leadership(self) -> None:
        """The next leadership begins with what it hears then."""
        leader = of_level()
        tell_all(leader, 1)
        leader.become_follower(leader.term + 1, None)
        leader.become_candidate()
        sync(leader)
        give_vote(leader, "b")
        self.assertTrue(leader.is_leader)
        self.assertIsNone(progress(leader, "c").level)

    def test_question(self) -> None:
        """AppendEntries of term 0 asks who is there, and changes nothing."""
        for asked in (server(), server(term=3), settled_leader()):
            term, leader = asked.term, asked.leader
            asked.request(AppendEntriesRequest(0, "x"), "reply")
            [answer] = [m for to, m in asked.ready().send if to == "reply"]
            assert isinstance(answer, AppendEntriesResponse)
            self.assertFalse(answer.success)
            self.assertEqual((asked.term, asked.leader), (term, leader))
            self.assertNotIsInstance(answer, Refusal)


class Withheld(SynchronousTestCase):
    """Who might judge entries by rules that do not hold any more gets none."""

    def entries_to(self, leader: Consensus, peer: str) -> list[Replicate]:
        leader.propose([command()])
        return [
            m for m in sent(leader.ready(), Replicate, peer) if m.last > m.prev_index
        ]

    def test_nothing_is_active(self) -> None:
        """At level 0 everybody gets entries, as ever."""
        leader = of_level()
        tell(leader, "b", None)
        self.assertTrue(self.entries_to(leader, "b"))

    def test_announces_nothing(self) -> None:
        leader = of_level()
        leader.activated(1)
        tell(leader, "b", None)
        self.assertEqual(self.entries_to(leader, "b"), [])
        tell(leader, "b", 1)
        self.assertTrue(self.entries_to(leader, "b"))

    def test_not_heard_yet(self) -> None:
        leader = of_level()
        leader.activated(1)
        leader.unreachable("b", heartbeat(leader, "b"))
        for _ in range(10):
            leader.tick()
            self.assertEqual(self.entries_to(leader, "b"), [])

    def test_announces_too_little(self) -> None:
        """It stops by itself at what it does not understand, and says so."""
        leader = of_level(2)
        leader.activated(2)
        tell(leader, "b", 0)
        self.assertTrue(self.entries_to(leader, "b"))


def commit_by_b(leader: Consensus) -> None:
    """Have b take all that the log holds."""
    for message in sent(sync(leader), Replicate, "b"):
        tell(leader, "b", 1, message)
    assert leader.commit_index == leader.log.last_index
