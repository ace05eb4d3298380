"""Membership changes, one at a time.  Source: Raft dissertation §4."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import (
    accept,
    append,
    command,
    give_vote,
    leader,
    log_of,
    membership,
    progress,
    request_vote,
    sent,
    server,
    settle,
    settled_leader,
    sync,
)
from txraft.core.configuration import (
    Configuration,
    ConfigurationHistory,
    Server,
    Suffrage,
)
from txraft.core.entry import Entry, LogType
from txraft.core.messages import AppendEntriesRequest, RequestVoteResponse
from txraft.core.ready import Heartbeat, Replicate
from txraft.errors import ConfigurationRefused


class Changes(SynchronousTestCase):
    """`change_configuration` at a leader.  Source: §4.1."""

    def test_change_takes_effect_when_appended(self) -> None:
        """The new server gets entries and counts before anything is committed."""
        leading = settled_leader()

        leading.change_configuration(membership(*"abcd"))

        self.assertEqual(leading.configuration.voters, tuple("abcd"))
        self.assertEqual(len(sent(leading.ready(), Replicate, "d")), 1)

    def test_change_is_committed_by_the_new_quorum(self) -> None:
        """With four voters, two copies are no quorum any more."""
        leading = settled_leader()
        leading.change_configuration(membership(*"abcd"))
        ready = sync(leading)

        accept(leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(leading.commit_index, 1)
        accept(leading, "c", sent(ready, Replicate, "c")[0])
        self.assertEqual(leading.commit_index, 2)

    def test_change_only_one_at_a_time(self) -> None:
        """A second change waits until the first is committed."""
        leading = settled_leader()
        leading.change_configuration(membership(*"abcd"))
        self.assertFalse(leading.may_change_configuration)
        second = membership(*"abcde")

        leading.change_configuration(second)

        self.assertEqual((second.index, leading.log.last_index), (0, 2))
        settle(leading)
        self.assertTrue(leading.may_change_configuration)

    def test_change_of_two_voters_refused(self) -> None:
        """It raises, and nothing is appended."""
        leading = settled_leader()

        with self.assertRaises(ConfigurationRefused):
            leading.change_configuration(membership("a", "d", "e"))

        self.assertEqual(leading.log.last_index, 1)

    def test_change_at_a_follower_changes_nothing(self) -> None:
        """Only a leader appends."""
        follower = server()

        follower.change_configuration(membership(*"abcd"))

        self.assertEqual(follower.log.last_index, 0)

    def test_change_of_suffrage_keeps_what_is_known(self) -> None:
        """A follower that becomes a voter is not probed anew."""
        members = Configuration(
            (*Configuration.of_voters("abc").servers, Server("d", "d", Suffrage(1)))
        )
        leading = settled_leader(configuration=members)
        known = progress(leading, "d")

        leading.change_configuration(membership(*"abcd"))

        self.assertIs(progress(leading, "d"), known)
        self.assertEqual(known.match, 1)


class BeforeOwnTerm(SynchronousTestCase):
    """No change before an entry of the leader's own term is committed.

    Source: Ongaro, raft-dev, 10 July 2015.
    """

    def test_change_waits_for_the_opening_entry(self) -> None:
        """A new leader may not know of a change that another leader committed."""
        leading = leader(2, log=log_of(1))

        self.assertFalse(leading.may_change_configuration)
        leading.change_configuration(membership(*"abcd"))

        self.assertEqual(leading.configuration.voters, tuple("abc"))
        settle(leading)
        self.assertTrue(leading.may_change_configuration)

    def test_change_by_two_leaders_from_one_parent(self) -> None:
        """The schedule with four servers that would lose a committed entry.

        S1 leads term 1 and appends D = S1 S2 S3 S4 S5 only on itself and S5. S2 leads
        term 2 with S3 and S4. If it could append C' = S2 S3 S4 before its own entry
        commits, S2 and S3 would commit it; S1, knowing only D, could then win term 3
        with S4 and S5 and overwrite it. As it cannot, S1's rival must first bring an
        entry of term 2 to a quorum, whose members refuse S1.
        """
        first = settled_leader(1, voters="1234", address="1")
        first.change_configuration(membership(*"12345"))
        sync(first)
        second = leader(2, address="2", log=log_of(1), voters="1234")
        sync(second)
        self.assertFalse(second.may_change_configuration)
        third = server("3", log=log_of(1), voters="1234", term=2)
        fourth = server("4", log=log_of(1), voters="1234", term=2)
        for name, follower in (("3", third), ("4", fourth)):
            follower.request(append(2, (1, 1), (2,), sender="2"), "reply")
            sync(follower)
            accept(
                second, name, Replicate(2, 1, 1, 2, 0, 0, progress(second, name).stream)
            )
        self.assertTrue(second.may_change_configuration)

        first.become_follower(2, None)
        first.become_candidate()
        ballot = sync(first).after_sync
        for _ in range(20):
            third.tick()
            fourth.tick()
        for to, follower in (("3", third), ("4", fourth)):
            request = next(m for peer, m in ballot if peer == to)
            follower.request(request, "vote")  # type: ignore[arg-type]
            sends = sync(follower).send
            answers = [m for _, m in sends if isinstance(m, RequestVoteResponse)]
            self.assertEqual([a.granted for a in answers], [False])


class Rollback(SynchronousTestCase):
    """A change that another leader overwrites is undone on every server."""

    def test_truncated_change_gives_back_the_old_quorum(self) -> None:
        """A deposed leader forgets the server it added."""
        deposed = settled_leader()
        deposed.change_configuration(membership(*"abcd"))
        sync(deposed)

        deposed.request(append(2, (1, 1), (2,)), "reply")

        self.assertEqual(deposed.configuration.voters, tuple("abc"))

    def test_uncommitted_removal_does_not_silence_a_server(self) -> None:
        """It may campaign until its removal is known to be committed.

        Source: §4.2.2.
        """
        leaving = server(term=1)
        removal = membership("b", "c")
        removal.index, removal.term = 1, 1
        leaving.request(AppendEntriesRequest(1, "b", 0, 0, [removal]), "reply")
        self.assertTrue(leaving.may_campaign)

        leaving.request(append(1, (1, 1), commit=1), "reply")

        self.assertFalse(leaving.may_campaign)

    def test_uncommitted_removal_after_a_restart(self) -> None:
        """A server that knows of no commit may campaign with any membership it has.

        It joined by the entry 3, removed itself as leader by the entry 5, and lost
        its memory of what is committed. The other voter lacks entries 4 and 5: only
        this server can be elected.
        """
        history = ConfigurationHistory(0, Configuration.of_voters("b"))
        history.append(3, Configuration.of_voters("ab"))
        history.append(5, Configuration.of_voters("b"))
        restarted = server(log=log_of(1, 1, 1, 2, 2), term=2, history=history)
        self.assertTrue(restarted.may_campaign)

        restarted.commit(5)

        self.assertFalse(restarted.may_campaign)


class SelfRemoval(SynchronousTestCase):
    """A leader that removes itself.  Source: §4.2.2."""

    def setUp(self) -> None:
        self.leading = settled_leader()
        self.leading.change_configuration(membership("b", "c"))

    def test_removal_leads_on_until_committed(self) -> None:
        """It manages a cluster that it is no part of, and takes no more entries."""
        ready = sync(self.leading)
        entry = command()

        self.leading.propose([entry])

        self.assertTrue(self.leading.is_leader)
        self.assertEqual(entry.index, 0)
        self.assertEqual(len(sent(ready, Replicate)), 2)

    def test_removal_does_not_count_the_leader(self) -> None:
        """One of the two remaining voters and the leader are no quorum."""
        ready = sync(self.leading)

        accept(self.leading, "b", sent(ready, Replicate, "b")[0])
        self.assertEqual(self.leading.commit_index, 1)
        accept(self.leading, "c", sent(ready, Replicate, "c")[0])
        self.assertEqual(self.leading.commit_index, 2)

    def test_removal_committed_tells_all_and_steps_down(self) -> None:
        """It stays until the others know, so that they need not find out."""
        ready = sync(self.leading)
        for follower in "bc":
            accept(self.leading, follower, sent(ready, Replicate, follower)[0])
        self.leading.tick()
        news = sent(sync(self.leading), Replicate)
        self.assertEqual([m.commit for m in news], [2, 2])
        self.assertTrue(self.leading.is_leader)

        for follower, message in zip("bc", news, strict=True):
            accept(self.leading, follower, message)
        sync(self.leading)

        self.assertFalse(self.leading.is_leader)
        self.assertFalse(self.leading.may_campaign)

    def test_removal_committed_does_not_wait_for_ever(self) -> None:
        """A follower that does not answer keeps nobody in office."""
        ready = sync(self.leading)
        for follower in "bc":
            accept(self.leading, follower, sent(ready, Replicate, follower)[0])
        sync(self.leading)
        for _ in range(11):
            self.leading.tick()
            ready = sync(self.leading)
            for follower in "bc":
                for heartbeat in sent(ready, Heartbeat, follower):
                    accept(self.leading, follower, heartbeat)

        self.assertFalse(self.leading.is_leader)

    def test_demotion_steps_down_as_well(self) -> None:
        """A leader that votes no more does not lead on."""
        leading = settled_leader()
        members = leading.configuration.with_server(Server("a", "a", Suffrage.NONVOTER))
        entry = Entry(0, 0, LogType.CONFIGURATION, configuration=members)
        leading.change_configuration(entry)

        settle(leading)
        settle(leading)

        self.assertFalse(leading.is_leader)


class Leaving(SynchronousTestCase):
    """Followers that were removed are told, and then forgotten."""

    def setUp(self) -> None:
        self.leading = settled_leader()
        self.leading.change_configuration(membership("a", "b"))

    def followers(self) -> set[str]:
        """Name those who still get entries."""
        role = self.leading.role
        return set(role.followers)  # type: ignore[union-attr]

    def test_removed_gets_its_removal_and_the_commit_of_it(self) -> None:
        """Nothing after it, and then nothing more."""
        self.leading.propose([command()])
        seen = []
        for _ in range(20):
            ready = sync(self.leading)
            for peer in "bc":
                for message in (
                    *sent(ready, Replicate, peer),
                    *sent(ready, Heartbeat, peer),
                ):
                    accept(self.leading, peer, message)
                    if peer == "c" and isinstance(message, Replicate):
                        seen.append((message.last, message.commit))
            self.leading.tick()

        self.assertEqual(seen[-1], (2, 2))
        self.assertEqual(self.leading.commit_index, 3)
        self.assertEqual(self.followers(), {"b"})

    def test_removed_that_does_not_answer_is_forgotten(self) -> None:
        """Telling it is bounded in time."""
        settle(self.leading, "c")
        for _ in range(25):
            self.leading.tick()
            settle(self.leading, "c")

        self.assertTrue(self.leading.is_leader)
        self.assertEqual(self.followers(), {"b"})

    def test_removed_does_not_count(self) -> None:
        """Two voters are left; the copy of the third is worth nothing."""
        ready = sync(self.leading)

        accept(self.leading, "c", sent(ready, Replicate, "c")[0])

        self.assertEqual(self.leading.commit_index, 1)

    def test_added_again_begins_anew(self) -> None:
        """Late answers to what it got before do not count for the new stream."""
        ready = sync(self.leading)
        late = sent(ready, Replicate, "c")[0]
        accept(self.leading, "b", sent(ready, Replicate, "b")[0])
        self.leading.change_configuration(membership("a", "b", "c"))
        self.assertEqual(self.leading.log.last_index, 3)

        accept(self.leading, "c", late)

        self.assertEqual(progress(self.leading, "c").match, 0)
        self.assertIsNone(progress(self.leading, "c").removal_index)

    def test_the_last_of_two_may_be_removed(self) -> None:
        """A leader can be left alone and goes on by itself."""
        settle(self.leading)
        self.leading.change_configuration(membership("a"))
        sync(self.leading)
        self.leading.propose([command()])
        sync(self.leading)

        self.assertEqual(self.leading.commit_index, 4)


class Newcomers(SynchronousTestCase):
    """Servers that join."""

    def test_nonvoter_gets_entries_and_counts_for_nothing(self) -> None:
        """Its copy commits nothing, and it does not campaign."""
        members = Configuration(
            (
                *Configuration.of_voters("ab").servers,
                Server("n", "n", Suffrage.NONVOTER),
            )
        )
        leading = leader(configuration=members)
        ready = sync(leading)

        accept(leading, "n", sent(ready, Replicate, "n")[0])

        self.assertEqual(leading.commit_index, 0)
        self.assertFalse(server("n", configuration=members).may_campaign)

    def test_promoted_follower_votes_though_it_does_not_know(self) -> None:
        """A voter may be one by an entry that it has not got."""
        newcomer = server("n", voters="ab", term=1)

        newcomer.request(request_vote(2, (5, 1)), "reply")

        self.assertEqual(newcomer.voted_for, "b")

    def test_vote_of_an_added_server_counts(self) -> None:
        """The configuration in force is the latest in the log, committed or not."""
        wide = membership(*"abcd")
        wide.index, wide.term = 1, 1
        campaigner = server(term=1, voters="abc")
        campaigner.request(AppendEntriesRequest(1, "b", 0, 0, [wide]), "reply")
        sync(campaigner)
        campaigner.become_candidate()
        sync(campaigner)

        give_vote(campaigner, "b")
        self.assertFalse(campaigner.is_leader)
        give_vote(campaigner, "d")
        self.assertTrue(campaigner.is_leader)
