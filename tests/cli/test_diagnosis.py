"""The doctor's findings, for each way in which a cluster can be unwell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from tests.support.cli_commands import CommandCase
from txraft.cli.diagnosis import LAG_ENTRIES, Severity, diagnose, leader_of
from txraft.cli.views import NodeView, parse_contact, parse_view
from txraft.client import MalformedAnswer
from txraft.kv.commands import encode_advertise
from txraft.transport.validity import Validity, utc_now

MEMBERS = ("a:1", "b:1", "c:1")


def healthy() -> list[NodeView]:
    """Three members, of whom `a:1` leads."""
    return [
        NodeView(
            f"http://{address}",
            address=address,
            state="Leader" if address == "a:1" else "Follower",
            term=5,
            leader="a:1",
            members=MEMBERS,
            last_index=90,
            commit_index=90,
            applied_index=90,
            last_contact=0.05,
        )
        for address in MEMBERS
    ]


def leaderless() -> list[NodeView]:
    """Three members, none of whom leads or knows who does."""
    return [replace(view, state="Follower", leader="") for view in healthy()]


def silent(view: NodeView) -> NodeView:
    """The same node, when it does not answer."""
    return NodeView(view.url, "connection refused")


class Doctor(SynchronousTestCase):
    """Each finding names who, why and what to do."""

    def only(self, views: list[NodeView], severity: Severity, *words: str) -> None:
        """Check that just one finding of *severity* is made, with *words* in it."""
        found = [f.sentence for f in diagnose(views) if f.severity is severity]
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_member_without_its_data(self) -> None:
        """It is named once, with who refuses it and the way back."""
        one, *others = healthy()
        views = [one, *(replace(v, refused_peers=("d:1",)) for v in others)]

        words = ("d:1 is refused by b:1, c:1", "join: true")
        self.only(views, Severity.FAULT, *words)

    def test_member_too_old(self) -> None:
        """What the leader hears of it and what it says itself are one finding."""
        a, b, c = (replace(v, level=2, active_level=2) for v in healthy())
        views = [replace(a, outdated_peers=("c:1",)), b, replace(c, level=1)]

        words = ("c:1 does not understand level 2", "install the version")
        self.only(views, Severity.FAULT, *words)

    def test_upgrade_under_way(self) -> None:
        """It says whom the new level waits for."""
        a, b, c = healthy()
        views = [replace(a, level=1), b, replace(c, level=1)]

        self.only(views, Severity.WARNING, "level 1", "as b:1 does not understand it")

    def test_entry_that_one_has_not_skipped(self) -> None:
        """Who has applied it differs; who has it to come is to skip it, too."""
        a, b, c = healthy()
        entry = f"80:4:{'d' * 16}"
        a, b = (replace(view, skipped=(entry,)) for view in (a, b))
        self.assertEqual(diagnose([a, b, replace(c, skipped=(entry,))]), [])

        words = ("c:1 has applied entry 80, which a:1, b:1 has skipped", "add it again")
        self.only([a, b, c], Severity.FAULT, *words)
        words = ("c:1 will stop at entry 80", "--index 80 --term 4 --digest dddd")
        self.only([a, b, replace(c, applied_index=79)], Severity.WARNING, *words)

    def test_peers_without_tls(self) -> None:
        """What was permitted is told of as long as it is so."""
        one, *others = healthy()
        views = [replace(one, insecure_peers=True), *others]

        self.only(
            views, Severity.WARNING, "a:1 accepts peers without TLS", "insecure_peers"
        )

    def test_certificate_expires(self) -> None:
        """It is told 30 days ahead, and is a fault once it has happened."""
        now = datetime(2031, 5, 4, 12, tzinfo=UTC)
        one, *others = healthy()
        for left, severity, words in (
            (timedelta(days=29, hours=23), Severity.WARNING, "expires in 29 days"),
            (timedelta(days=1), Severity.WARNING, "expires in 1 day, on 2031-05-05"),
            (timedelta(hours=3), Severity.WARNING, "within a day"),
            (timedelta(0), Severity.FAULT, "it has expired, on 2031-05-04 12:00 UTC"),
        ):
            views = [replace(one, certificates={"tls.certificate": now + left})]
            found = diagnose([*views, *others], now)
            self.assertEqual([f.severity for f in found], [severity])
            self.assertIn("tls.certificate of a:1: ", found[0].sentence)
            self.assertIn(words, found[0].sentence)
            self.assertIn("tls issue --renew", found[0].sentence)

        later = {"tls.certificate": now + timedelta(days=30, seconds=1)}
        self.assertEqual(diagnose([replace(one, certificates=later), *others], now), [])

    def test_authority_expires(self) -> None:
        """What all members share is told once."""
        now = datetime(2031, 5, 4, tzinfo=UTC)
        end = {"tls.ca": now + timedelta(days=9)}
        views = [replace(view, certificates=end) for view in healthy()]

        [found] = diagnose(views, now)

        self.assertIn("tls.ca of a:1, b:1, c:1: it expires in 9 days", found.sentence)
        self.assertIn("append another authority to tls.ca on every", found.sentence)

    def test_issuer_has_expired(self) -> None:
        """A certificate may be trusted without one of the issuers beside it."""
        now = datetime(2031, 5, 4, tzinfo=UTC)
        one, *others = healthy()
        end = {"tls.certificate.issuer": now - timedelta(days=1)}

        [found] = diagnose([replace(one, certificates=end), *others], now)

        self.assertEqual(found.severity, Severity.WARNING)
        self.assertIn("tls.certificate.issuer of a:1: it has expired", found.sentence)
        self.assertIn("or remove it", found.sentence)

    def test_all_is_well(self) -> None:
        """A healthy cluster has no findings."""
        self.assertEqual(diagnose(healthy()), [])

    def test_one_member_silent(self) -> None:
        """A cluster that works has a fault all the same when a member is down."""
        a, b, c = healthy()

        self.only([a, b, silent(c)], Severity.FAULT, "http://c:1", "refused")
        self.assertEqual(len(diagnose([a, b, silent(c)])), 1)

    def test_one_member_not_named(self) -> None:
        """Whoever was not asked is named, as nobody knows how that one is."""
        a, b, _ = healthy()

        self.only([a, b], Severity.WARNING, "c:1", "--http-addr")

    def test_nobody_answers(self) -> None:
        """Without any view nothing is known but that."""
        found = diagnose([silent(view) for view in healthy()])

        self.assertEqual(len(found), 3)

    def test_no_leader_for_want_of_a_quorum(self) -> None:
        """It is said how many are needed, and whom to start."""
        views = [leaderless()[0], silent(healthy()[1]), silent(healthy()[2])]

        why = [f.sentence for f in diagnose(views) if "no leader" in f.sentence]

        self.assertEqual(len(why), 1)
        for word in ("1 answer", "2 are needed", "b:1, c:1"):
            self.assertIn(word, why[0])

    def test_no_leader_although_all_answer(self) -> None:
        """Who campaigns is said, and that the peers' ports are to be looked at."""
        a, b, c = leaderless()
        a = replace(a, state="Candidate", term=77)

        self.only([a, b, c], Severity.FAULT, "no leader", "term 77", "advertise")

    def test_leader_that_is_not_there(self) -> None:
        """The others still believe in a leader that has died."""
        b, c = healthy()[1:]

        self.only([b, c], Severity.FAULT, "a:1 is believed to lead")

    def test_nobody_is_a_member(self) -> None:
        """Nodes that wait to be added have no leader, and that is why."""
        views = [replace(view, members=()) for view in leaderless()]

        self.only(views, Severity.FAULT, "peer add")

    def test_two_leaders(self) -> None:
        """That of the earlier term is told apart."""
        a, b, c = healthy()
        b = replace(b, state="Leader", term=6, leader="b:1")

        self.assertIs(leader_of([a, b, c]), b)
        self.only([a, b, c], Severity.FAULT, "a:1", "term 5", "term 6")

    def test_lag(self) -> None:
        """A follower far behind is named with how far."""
        a, b, c = healthy()
        a = replace(a, commit_index=90 + LAG_ENTRIES + 1)
        b = replace(b, commit_index=90 + LAG_ENTRIES)

        self.only([a, b, c], Severity.FAULT, "c:1 lags", str(LAG_ENTRIES + 1))

    def test_out_of_contact(self) -> None:
        """A follower that hears no leader is named, however well it answers us."""
        a, b, c = healthy()

        self.only([a, b, replace(c, last_contact=9.5)], Severity.FAULT, "c:1", "9.5 s")
        self.only([a, b, replace(c, last_contact=None)], Severity.FAULT, "c:1")

    def test_applies_slowly(self) -> None:
        """What is committed but not applied is a backlog."""
        a, b, c = healthy()
        views = [replace(view, commit_index=5000) for view in (a, b, c)]
        views = [replace(view, applied_index=5000) for view in views[:2]] + views[2:]

        self.only(views, Severity.WARNING, "c:1", "4910")

    def test_hangs(self) -> None:
        """A state machine that hangs is a fault, told with the entry it hangs at."""
        a, b, c = healthy()
        stuck = replace(c, commit_index=5000, applied_index=90, stuck_seconds=30.2)
        views = [
            replace(view, commit_index=5000, applied_index=5000) for view in (a, b)
        ]

        self.only(
            [*views, stuck], Severity.FAULT, "for 30 s it has not finished entry 91"
        )

    def test_stranger(self) -> None:
        """A node that answers but is no member is told how to become one."""
        stranger = replace(
            healthy()[1], address="d:1", url="http://d:1", members=(), last_index=0
        )

        self.only([*healthy(), stranger], Severity.WARNING, "txraft peer add d:1")

    def test_even_number(self) -> None:
        """Two and four members are a warning."""
        for members in (MEMBERS[:2], (*MEMBERS, "d:1")):
            views = [
                replace(healthy()[0], address=a, url=a, members=members)
                for a in members
            ]
            views = [views[0], *(replace(v, state="Follower") for v in views[1:])]
            self.only(views, Severity.WARNING)

    def test_worst_first(self) -> None:
        """Faults come before warnings."""
        a, b, _ = healthy()
        views = [replace(v, members=("a:1", "b:1")) for v in (a, b)]

        found = diagnose([*views, silent(b)])

        self.assertEqual(found[0].severity, Severity.FAULT)


class Views(SynchronousTestCase):
    """What a node tells, as the commands understand it."""

    def test_parse(self) -> None:
        """The figures are the node's own."""
        told = {
            "Config": {"NodeName": "a:1", "TxraftVersion": "1.2.3"},
            "Stats": {
                "consul": {"leader_addr": "b:1"},
                "raft": {
                    "state": "Follower",
                    "term": "3",
                    "last_log_index": "12",
                    "commit_index": "11",
                    "applied_index": "10",
                    "last_contact": "0.025s",
                    "cluster": "aabb",
                    "configuration_index": "7",
                    "nonvoters": "d:1",
                    "silent_peers": "c:1=17.5s, [::1]:1=4.0s",
                },
            },
        }

        nodes = [
            {"Node": "a:1", "Meta": {"http": "http://a/"}},
            {"Node": "b:1", "Meta": {}},
        ]
        view = parse_view("http://a", told, nodes)

        self.assertEqual((view.address, view.leader, view.term), ("a:1", "b:1", 3))
        self.assertEqual((view.commit_index, view.last_contact), (11, 0.025))
        self.assertEqual(view.members, ("a:1", "b:1"))
        self.assertEqual(view.version, "1.2.3")
        self.assertEqual((view.cluster, view.configuration_index), ("aabb", 7))
        self.assertEqual(view.nonvoters, ("d:1",))
        self.assertEqual(view.silent_peers, {"c:1": 17.5, "[::1]:1": 4.0})
        self.assertEqual(view.urls, {"a:1": "http://a"})

    def test_parse_of_something_else(self) -> None:
        """What no node would tell is an error."""
        for told in ({}, [], None, {"Stats": {"raft": 3}}):
            self.assertRaises(MalformedAnswer, parse_view, "http://a", told, [])

    def test_contact(self) -> None:
        """Never, just now, seconds and milliseconds."""
        texts = ("never", "0", "1.5s", "20ms")

        self.assertEqual([parse_contact(t) for t in texts], [None, 0, 1.5, 0.02])


class Asking(CommandCase):
    """Whom `status`, `doctor` and `members` ask, and what they show."""

    def setUp(self) -> None:
        super().setUp()
        for node in (self.n1, self.n2):
            node.members |= {"n1:8300", "n2:8300"}

    def advertise(self, address: str, url: str) -> None:
        for node in (self.n1, self.n2):
            node.commit(encode_advertise(address, url))

    def told(self, *arguments: str) -> tuple[int, str, str]:
        result = self.txraft(*arguments, "--http-addr", "http://n1:8500")
        return result.exit_code, result.stdout, result.stderr

    def test_others_are_found(self) -> None:
        """Any one address is enough, as the nodes know each other's."""
        self.advertise("n2:8300", "http://n2:8500")

        status, table, _ = self.told("status")

        self.assertEqual(status, 0)
        self.assertIn("http://n2:8500", table)
        self.assertEqual(len(table.splitlines()), 3, table)
        self.assertIn("http://n2:8500", self.told("members")[1])
        self.assertNotIn("not asked", self.told("doctor")[1])

    def test_other_is_down(self) -> None:
        """It is told by both of its addresses."""
        self.advertise("n2:8300", "http://n2:8500")
        self.network.refusing.add("n2:8500")

        status, table, said = self.told("status")

        self.assertEqual(status, 1)
        self.assertRegex(table, r"n2:8300 +silent.*http://n2:8500")
        self.assertIn("http://n2:8500", said)
        self.assertIn("n2:8500 does not answer", self.told("doctor")[1])

    def test_member_without_its_data(self) -> None:
        """Whoever is refused is named, as long as it comes."""
        self.n1.more_stats = {"refused_peers": "n2:8300, n3:8300"}

        _, _, said = self.told("status")

        self.assertIn("n1:8300 refuses n2:8300, whose data", said)
        self.assertIn("n1:8300 refuses n3:8300, whose data", said)
        self.assertIn("n3:8300 is refused by n1:8300", self.told("doctor")[1])

    def test_member_too_old(self) -> None:
        """A member that does not understand what is active is named."""
        self.n1.more_stats = {
            "level": "2",
            "active_level": "2",
            "outdated_peers": "n3:8300",
        }

        _, _, said = self.told("status")

        self.assertIn("n3:8300 does not understand level 2", said)

    def test_certificate_expires(self) -> None:
        """A node tells when, and the doctor whether that is soon."""
        end = utc_now() + timedelta(days=3, hours=1)
        self.n1.validities = [Validity("http.tls.certificate", "n1.pem", end)]

        status, found, _ = self.told("doctor")

        self.assertEqual(status, 0)
        self.assertIn(
            "warning: http.tls.certificate of n1:8300: it expires in 3 days", found
        )

    def test_entry_that_is_not_delivered(self) -> None:
        """The leader says which, and to whom."""
        named = "entry 7 of term 2 (900 bytes) to n2:8300"
        self.n1.more_stats = {"undeliverable_entries": named}

        self.assertIn(f"n1:8300 cannot deliver {named}", self.told("status")[2])
        self.assertIn(f"n1:8300 cannot deliver {named}", self.told("doctor")[1])

    def test_member_that_is_not_heard(self) -> None:
        """What the leader knows counts, though nobody knows where to ask."""
        self.n1.more_stats = {"silent_peers": "n2:8300=9.0s"}

        status, _, said = self.told("status")

        self.assertEqual(status, 1)
        self.assertIn("the leader has not heard n2:8300 for 9 s", said)
        status, found, _ = self.told("doctor")
        self.assertEqual(status, 1)
        self.assertIn("fault: the leader n1:8300 has not heard the voter n2", found)

    def test_other_is_not_known(self) -> None:
        status, table, said = self.told("status")

        self.assertEqual(status, 0)
        self.assertEqual(len(table.splitlines()), 2, table)
        self.assertIn("n2:8300", said)
        self.assertIn("unknown", self.told("members")[1])

    def test_other_name_of_the_same(self) -> None:
        """A node that answers for itself is shown once, however it was named."""
        self.advertise("n1:8300", "http://n1.example:8500")
        self.advertise("n2:8300", "http://n2:8500")

        self.assertEqual(len(self.told("status")[1].splitlines()), 3)
