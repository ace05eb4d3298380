"""Configurations, their history, and majorities, compared with counting."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from txraft.core.configuration import (
    Configuration,
    ConfigurationHistory,
    Server,
    Suffrage,
    agreed_value,
    majority,
)
from txraft.errors import ConfigurationRefused

ABC = Configuration.of_voters("abc")


class Steps(SynchronousTestCase):
    """`Configuration.check_step_to`: only one voter more or less.

    Source: Raft dissertation §4.1.
    """

    def test_check_step_to_one_more_or_less(self) -> None:
        """Any two quorums of neighbouring configurations overlap."""
        ABC.check_step_to(Configuration.of_voters("abcd"))
        ABC.check_step_to(Configuration.of_voters("ab"))
        ABC.check_step_to(ABC)

    def test_check_step_to_two_voters_refused(self) -> None:
        """Two voters more, less or exchanged may make disjoint quorums."""
        for voters in ("abcde", "a", "abd"):
            with self.assertRaises(ConfigurationRefused):
                ABC.check_step_to(Configuration.of_voters(voters))

    def test_check_step_to_many_nonvoters(self) -> None:
        """Who does not vote changes no quorum."""
        new = ABC
        for name in "xyz":
            new = new.with_server(Server(name, name, Suffrage.NONVOTER))

        ABC.check_step_to(new)

    def test_check_step_to_no_voter_refused(self) -> None:
        """The last voter stays."""
        with self.assertRaises(ConfigurationRefused):
            Configuration.of_voters("a").check_step_to(Configuration())

    def test_check_refuses_doubles_and_empty_names(self) -> None:
        """Each server has one id and one address of its own."""
        wrong = [
            (Server("a", "x"), Server("b", "x")),
            (Server("a", "x"), Server("a", "y")),
            (Server("", "x"),),
            (Server("a", ""),),
        ]
        for servers in wrong:
            with self.assertRaises(ConfigurationRefused):
                Configuration(servers).check()


class Membership(SynchronousTestCase):
    """`Configuration.with_server`, `without` and what they tell of voters."""

    def test_with_server_replaces_by_id_or_address(self) -> None:
        """A server that moved, or a name that changed hands, is there once."""
        moved = ABC.with_server(Server("b", "elsewhere"))
        taken = ABC.with_server(Server("new", "b"))

        self.assertEqual(moved.addresses, ("a", "c", "elsewhere"))
        self.assertEqual([s.id for s in taken.servers], ["a", "c", "new"])

    def test_is_voter_only_with_suffrage(self) -> None:
        """Members who do not vote, and strangers, are no voters."""
        some = ABC.with_server(Server("b", "b", Suffrage.NONVOTER))

        self.assertEqual([some.is_voter(a) for a in "abz"], [True, False, False])
        self.assertEqual(some.voters, ("a", "c"))


class Histories(SynchronousTestCase):
    """`ConfigurationHistory`: in force from append, gone with truncation."""

    def setUp(self) -> None:
        self.history = ConfigurationHistory(0, ABC)
        self.four = Configuration.of_voters("abcd")
        self.five = Configuration.of_voters("abcde")
        self.history.append(3, self.four)
        self.history.append(7, self.five)

    def test_latest_is_the_newest_appended(self) -> None:
        """A configuration is in force as soon as it is in the log.

        Source: Raft dissertation §4.1.
        """
        self.assertEqual(
            (self.history.latest_index, self.history.latest), (7, self.five)
        )

    def test_truncate_brings_back_the_one_before(self) -> None:
        """A configuration leaves with its entry."""
        self.history.truncate_from(8)
        self.assertEqual(self.history.latest, self.five)
        self.history.truncate_from(7)
        self.assertEqual(self.history.latest, self.four)
        self.history.truncate_from(1)
        self.assertEqual((self.history.latest_index, self.history.latest), (0, ABC))

    def test_at_tells_what_was_in_force(self) -> None:
        """A snapshot records the configuration at its own index."""
        self.assertEqual(
            [self.history.at(i)[0] for i in (0, 2, 3, 6, 7, 99)], [0, 0, 3, 3, 7, 7]
        )

    def test_since_lists_what_may_be_committed(self) -> None:
        """The one in force at a commit index, and all that came after it."""
        self.assertEqual(self.history.since(0), [ABC, self.four, self.five])
        self.assertEqual(self.history.since(6), [self.four, self.five])
        self.assertEqual(self.history.since(7), [self.five])

    def test_forget_before_keeps_what_is_in_force_there(self) -> None:
        """After compaction the configuration at that index is still known."""
        self.history.forget_before(5)

        self.assertEqual(self.history.at(5), (3, self.four))
        self.assertEqual(self.history.indexes, [3, 7])
        self.history.truncate_from(4)
        self.assertEqual(self.history.latest, self.four)


class Quorum(SynchronousTestCase):
    """`majority` and `agreed_value`."""

    def test_majority_of_one_to_nine(self) -> None:
        """More than half, for even sizes too."""
        self.assertEqual(
            [majority(n) for n in range(1, 10)], [1, 2, 2, 3, 3, 4, 4, 5, 5]
        )

    def test_agreed_value_is_what_a_majority_reached(self) -> None:
        """The highest value that more than half have reached, counted one by one."""
        for size in range(1, 6):
            for values in product(range(4), repeat=size):
                reached = max(
                    v for v in range(4) if 2 * sum(x >= v for x in values) > size
                )
                self.assertEqual(agreed_value(values), reached, values)

    def test_agreed_value_of_nobody(self) -> None:
        """No voters agree on nothing."""
        self.assertEqual(agreed_value([]), 0)
