"""Broken clusters: the doctor's findings, and no advice that harms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txraft.cli.diagnosis import Severity, diagnose, tolerance
from txraft.cli.views import NodeView

X, Y = "aa" * 16, "bb" * 16
ADD = "`txraft peer add"
Case = tuple[str, list[NodeView], Sequence[str], Sequence[str]]


def node(address: str, **more: object) -> NodeView:
    """Make a node of a healthy cluster of `a:1`, `b:1` and `c:1`, led by `a:1`."""
    members = more.pop("members", ("a:1", "b:1", "c:1"))
    view = NodeView(
        f"http://{address}",
        address=address,
        state="Leader" if address == "a:1" else "Follower",
        term=5,
        leader="a:1",
        members=members,  # type: ignore[arg-type]
        last_index=90,
        commit_index=90,
        applied_index=90,
        last_contact=0.05,
        cluster=X,
        configuration_index=1,
    )
    return replace(view, **more)  # type: ignore[arg-type]


def alone(address: str, cluster: str, **more: object) -> NodeView:
    """Make a node that leads a cluster of itself."""
    leads = {"state": "Leader", "leader": address, "members": (address,)}
    return node(address, cluster=cluster, **{**leads, **more})


def fresh(address: str) -> NodeView:
    """Make a node that was started with `join: true` and waits."""
    return NodeView(
        f"http://{address}", address=address, state="Follower", last_contact=None
    )


def bootstrapped(address: str, *members: str) -> NodeView:
    """Make a node that was given *members* to found a cluster, and has no leader."""
    return node(
        address,
        state="Candidate",
        leader="",
        term=3,
        members=members,
        cluster="",
        last_index=1,
        commit_index=0,
        applied_index=0,
        last_contact=None,
    )


def down(address: str, known: bool = True) -> NodeView:
    """Make what is known of a node that does not answer."""
    return NodeView(f"http://{address}", "refused", address if known else "")


A, B, C = node("a:1"), node("b:1"), node("c:1")
FOUR = ("a:1", "b:1", "c:1", "d:1")
FIVE = (*FOUR, "e:1")


def five(address: str, **more: object) -> NodeView:
    """Make a node of a cluster of five."""
    return node(address, members=FIVE, **more)


def lost(view: NodeView) -> NodeView:
    """Make a node that knows no leader."""
    return replace(view, state="Follower", leader="", last_contact=9.0)


FAULTS: tuple[Case, ...] = (
    (
        "recovered, and a lost member is started by mistake",
        [alone("a:1", Y, configuration_index=80), lost(B)],
        ("members of 2 clusters", "a:1 of bbbbbbbb", "b:1 of aaaaaaaa", "do not add"),
        ("b:1 answers", "believed to lead"),
    ),
    (
        "recovered, and both lost members go on without it",
        [
            alone("a:1", Y, configuration_index=80),
            node("b:1", state="Leader", leader="b:1", silent_peers={"a:1": 50.0}),
            node("c:1", leader="b:1"),
        ],
        ("members of 2 clusters", "a:1 of bbbbbbbb", "b:1, c:1 of aaaaaaaa"),
        (ADD + " a:1",),
    ),
    (
        "bootstrapped twice, by each node alone",
        [alone("a:1", X), alone("b:1", Y)],
        ("members of 2 clusters", "a:1", "b:1"),
        (ADD + " b:1", ADD + " a:1"),
    ),
    (
        "bootstrapped twice, with the same list",
        [A, B, node("c:1", cluster=Y, state="Leader", leader="c:1")],
        ("members of 2 clusters", "c:1 of bbbbbbbb"),
        (),
    ),
    (
        "members of three clusters",
        [alone("a:1", X), alone("b:1", Y), alone("c:1", "cc" * 16)],
        ("members of 3 clusters",),
        (ADD + " b:1",),
    ),
    (
        "two clusters, neither of which has a leader",
        [lost(A), lost(node("b:1", cluster=Y)), down("c:1")],
        ("members of 2 clusters", "settle that first"),
        ("txraft recover", "firewalls"),
    ),
    (
        "bootstrapped with lists that have nothing in common",
        [bootstrapped("a:1", "a:1", "b:1"), bootstrapped("c:1", "c:1", "d:1")],
        ("bootstrapped with different members", "a:1, b:1", "c:1, d:1", "settle that"),
        (ADD + " c:1", "firewalls", "txraft recover"),
    ),
    (
        "bootstrapped with lists of which one is longer",
        [
            bootstrapped("a:1", "a:1", "b:1", "c:1"),
            bootstrapped("b:1", "a:1", "b:1", "c:1"),
            bootstrapped("c:1", "a:1", "b:1", "c:1", "d:1"),
        ],
        ("a:1 and c:1 were bootstrapped with different members",),
        ("firewalls", "another cluster"),
    ),
    (
        "one member was bootstrapped otherwise, and the others have a leader",
        [A, B, node("c:1", members=FOUR)],
        ("a:1 and c:1 were bootstrapped with different members",),
        (),
    ),
    (
        "a voter that never answered",
        [
            node("a:1", members=FOUR, silent_peers={"d:1": 31.0}),
            node("b:1", members=FOUR),
            node("c:1", members=FOUR),
        ],
        ("voter d:1 for 31 s", "Of 4 voters 3 are well", "the next failure"),
        ("not asked",),
    ),
    (
        "one of two voters added at a port where nobody listens",
        [
            node("a:1", silent_peers={"c:1": 6.0}),
            B,
        ],
        ("voter c:1 for 6 s", "Of 3 voters 2 are well", "the next failure"),
        (),
    ),
    (
        "a member that is down, with a known HTTP address",
        [node("a:1", silent_peers={"c:1": 6.0}), B, down("c:1")],
        ("http://c:1 does not answer", "has not heard the voter c:1"),
        (),
    ),
    (
        "one of five is down, and there is room yet",
        [
            five("a:1", silent_peers={"e:1": 7.0}),
            *(five(f"{name}:1") for name in "bcd"),
        ],
        (
            "voter e:1",
            "Of 5 voters 4 are well: it stands 1 more failure",
        ),
        ("the next failure",),
    ),
    (
        "a member without a vote is down",
        [
            node("a:1", members=FOUR, nonvoters=("d:1",), silent_peers={"d:1": 7.0}),
            B,
            C,
        ],
        ("the member d:1", "Of 3 voters 3 are well: it stands 1 more"),
        ("voter d:1",),
    ),
    (
        "a member that answers over HTTP and is not heard by the leader",
        [node("a:1", silent_peers={"c:1": 8.0}), B, node("c:1", last_contact=8.0)],
        ("voter c:1", "the way between their peer addresses is broken"),
        ("peer remove",),
    ),
    (
        "two leaders that both answer",
        [A, node("b:1", state="Leader", leader="b:1", term=6), C],
        ("a:1 says that it leads term 5", "b:1 that it leads term 6"),
        ("peer remove",),
    ),
    (
        "two leaders of clusters without an identity",
        [
            alone("a:1", "", configuration_index=4),
            alone("b:1", "", configuration_index=3, term=4),
        ],
        ("b:1 says that it leads term 4", "change no members"),
        (ADD + " b:1",),
    ),
    (
        "a node with data of its own, of a cluster without an identity",
        [
            *(replace(view, cluster="") for view in (A, B, C)),
            node("d:1", cluster="", members=("d:1", "e:1"), configuration_index=3),
        ],
        ("d:1 answers, is no member, and has data of its own", "Do not add it"),
        (ADD,),
    ),
    (
        "no quorum",
        [lost(A), down("b:1"), down("c:1")],
        ("of 3 members 1 answer, and 2 are needed", "Start b:1, c:1"),
        (ADD,),
    ),
    (
        "no quorum among voters, though others answer",
        [
            lost(node("a:1", members=FOUR, nonvoters=("d:1",))),
            lost(node("d:1", members=FOUR, nonvoters=("d:1",))),
        ],
        ("of 3 members 1 answer, and 2 are needed", "Start b:1, c:1"),
        (),
    ),
    (
        "a quorum that does not find a leader",
        [lost(A), lost(B), lost(C)],
        ("there is no leader although 3 of 3 members answer",),
        ("bootstrapped",),
    ),
    (
        "only nodes that wait to be added",
        [fresh("a:1"), fresh("b:1")],
        ("no node that answers is a member of any cluster",),
        ("bootstrapped",),
    ),
    (
        "nobody answers",
        [down("a:1", known=False), down("b:1", known=False)],
        ("http://a:1 does not answer", "http://b:1 does not answer"),
        (ADD, "txraft recover"),
    ),
)

WARNINGS: tuple[Case, ...] = (
    (
        "a new node waits",
        [A, B, C, fresh("d:1")],
        (ADD + " d:1",),
        (),
    ),
    (
        "a member that was removed runs on",
        [
            *(replace(view, configuration_index=80) for view in (A, B, C)),
            node("d:1", members=FOUR, configuration_index=60, commit_index=70),
        ],
        ("d:1 was a member", "Do not add it as it is"),
        (ADD,),
    ),
    (
        "a member that nobody knows the HTTP address of, and the leader hears",
        [A, B],
        ("not asked: 1 of c:1",),
        ("has not heard",),
    ),
    (
        "a member that has not yet heard of a change",
        [
            replace(A, members=FOUR, configuration_index=88),
            replace(B, members=FOUR, configuration_index=88),
            replace(C, commit_index=80),
            node("d:1", members=FOUR, configuration_index=88),
        ],
        ("c:1 knows other members",),
        ("bootstrapped",),
    ),
)


class BrokenClusters(SynchronousTestCase):
    """Each is called by its name, with advice that does not make it worse."""

    def examine(self, cases: Sequence[Case], is_fault: Callable[[bool], bool]) -> None:
        """Check what is said, what is not, and whether any of it is a fault."""
        for name, views, said, unsaid in cases:
            for order in (views, views[::-1]):
                found = diagnose(order)
                text = "\n".join(finding.sentence for finding in found)
                fault = any(each.severity is Severity.FAULT for each in found)
                self.assertTrue(is_fault(fault), f"{name}: {text}")
                if order is views:
                    for words in said:
                        self.assertIn(words, text, name)
                for words in unsaid:
                    self.assertNotIn(words, text, name)

    def test_faults(self) -> None:
        """A script that asks the doctor is told by the status."""
        self.assertGreaterEqual(len(FAULTS), 20)
        self.examine(FAULTS, lambda fault: fault)

    def test_warnings(self) -> None:
        """What works is not called broken."""
        self.examine(WARNINGS, lambda fault: not fault)

    def test_new_node_beside_one_that_is_down(self) -> None:
        """A voter more raises the quorum: who is down comes first."""
        leader = node("a:1", silent_peers={"c:1": 9.0})

        text = "\n".join(f.sentence for f in diagnose([leader, B, fresh("d:1")]))

        self.assertIn("Before you add it, start or remove c:1", text)
        self.assertNotIn(ADD, text)

    def test_one_node_by_two_addresses(self) -> None:
        """It is asked twice and counts once."""
        self.assertEqual(diagnose([A, B, C, replace(A, url="http://other")]), [])

    def test_tolerance(self) -> None:
        """Voters that the leader hears, above the quorum."""
        self.assertEqual(tolerance(A), 1)
        self.assertEqual(tolerance(five("a:1")), 2)
        self.assertEqual(tolerance(five("a:1", silent_peers={"b:1": 3.0})), 1)
        self.assertEqual(tolerance(node("a:1", silent_peers={"b:1": 3.0})), 0)
        self.assertEqual(tolerance(alone("a:1", X)), 0)
