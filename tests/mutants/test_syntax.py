"""Pieces of syntax are found whatever local names are called, and once or not at all."""

from __future__ import annotations

import ast
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.mutants.syntax import Found, Package, Unplantable, parsed

VOTING = """
from quorum import majority

LEAST = 2

class Candidate:
    patience: int = 3

    def synced(self, server):
        if server.state_is_durable:
            self.count(server.address)

    def won(self):
        granted = sum(1 for voter in self.server.voters if voter in self.granted)
        return granted >= majority(len(self.server.voters))

    def tick(self, count):
        self.waited += count
        self.asked = None
        if self.waited <= self.least:
            return
        elif self.tired:
            self.rest(1, 2, now=True)
        self.server.campaign()
"""

OTHERS = """
def synced(log, sync):
    sync(log)

def tick(count):
    pass

class Timer:
    def passed(self, ticks):
        self.waited += ticks
        return self.waited > self.least
"""


def package(**modules: str) -> Package:
    """Return a package of the modules given, those above if there are none."""
    texts = modules or {"voting": VOTING, "others": OTHERS}
    return Package(parsed(f"{name}.py", text) for name, text in texts.items())


class Fitting(SynchronousTestCase):
    """Which syntax a piece stands for."""

    def assert_fits(self, at: str, old: str, real: str) -> Found:
        """Claim that *old* fits the statement or expression *real* in *at* alone."""
        found = package().find(at, old, "True")
        self.assertFalse(found.elsewhere)
        self.assertEqual(ast.unparse(found.spot.node), real)
        return found

    def test_local_name(self) -> None:
        """A local name may be called otherwise."""
        self.assert_fits(
            "Candidate.synced", "consensus.state_is_durable", "server.state_is_durable"
        )

    def test_local_name_stands_for_a_chain(self) -> None:
        """It may have become an attribute of a local name, or lost the attribute."""
        self.assert_fits(
            "Candidate.won",
            "len(consensus.voters)",
            "len(self.server.voters)",
        )
        self.assert_fits(
            "Timer.passed", "timer.waited > timer.least", "self.waited > self.least"
        )

    def test_local_name_is_the_same_each_time(self) -> None:
        """One name does not stand for two."""
        self.assert_fits(
            "Candidate.tick", "a.waited <= a.least", "self.waited <= self.least"
        )
        with self.assertRaises(Unplantable):
            package().find("Candidate.synced", "a.count(a.address)", "None")

    def test_names_of_the_module_stand_for_themselves(self) -> None:
        """Neither a builtin, nor an import, nor a global is any other name."""
        self.assert_fits(
            "Candidate.won",
            "majority(len(server.voters))",
            "majority(len(self.server.voters))",
        )
        for other in ("minority(len(server.voters))", "majority(max(server.voters))"):
            with self.assertRaises(Unplantable):
                package().find("Candidate.won", other, "0")

    def test_attributes_constants_and_operators_stand_for_themselves(self) -> None:
        """A piece that differs in one of them is another piece."""
        for other in (
            "self.waited < self.least",
            "self.waited <= self.most",
            "self.rest(1, 3, now=True)",
            "self.rest(1, 2, soon=True)",
        ):
            with self.assertRaises(Unplantable):
                package().find("Candidate.tick", other, "None")

    def test_gap(self) -> None:
        """`...` stands for an expression, for all arguments, or for a block."""
        self.assert_fits(
            "Candidate.won",
            "sum(...)",
            "sum((1 for voter in self.server.voters if voter in self.granted))",
        )
        self.assert_fits(
            "Candidate.tick", "self.rest(1, ..., now=True)", "self.rest(1, 2, now=True)"
        )
        self.assert_fits(
            "Candidate.tick", "self.server.campaign(...)", "self.server.campaign()"
        )
        self.assert_fits(
            "Candidate.tick", "... <= self.least", "self.waited <= self.least"
        )

    def test_class_and_constant(self) -> None:
        """Not only functions have names."""
        self.assert_fits("Candidate.patience", "patience: int = 3", "patience: int = 3")
        self.assert_fits("LEAST", "2", "2")
        self.assert_fits("Candidate", "self.tired", "self.tired")


class Finding(SynchronousTestCase):
    """Where a piece is looked for."""

    def test_file(self) -> None:
        """Of two functions with one name, a file chooses."""
        here = package(one="def f(a):\n    a.b()", two="def f(c):\n    c.b()")

        self.assertEqual(here.find("two:f", "x.b()", "").path, "two.py")
        with self.assertRaisesRegex(Unplantable, "fits 2 times, in one:f, two:f"):
            here.find("f", "x.b()", "")

    def test_twice_is_refused(self) -> None:
        """What fits twice is not planted in either place."""
        with self.assertRaisesRegex(
            Unplantable, "fits 2 times, in voting:Candidate.won"
        ):
            package().find("Candidate.won", "x.voters", "()")

    def test_moved_to_another_class(self) -> None:
        """If the class is gone, what has the same last name is next."""
        found = package().find("PreCandidate.synced", "x.state_is_durable", "True")

        self.assertEqual(found.at, "voting:Candidate.synced")
        self.assertTrue(found.elsewhere)

    def test_function_that_is_gone(self) -> None:
        """If the function is gone, the whole package is looked through."""
        found = package().find("Follower.hurry", "self.server.campaign()", "")

        self.assertEqual(found.at, "voting:Candidate.tick")
        self.assertTrue(found.elsewhere)

    def test_nowhere(self) -> None:
        """What is gone is told with where it was."""
        with self.assertRaisesRegex(Unplantable, "neither in Candidate.tick nor"):
            package().find("Candidate.tick", "self.waited > self.most", "True")

    def test_nothing_is_no_piece(self) -> None:
        """A gap alone would fit all there is."""
        for nothing in ("", "..."):
            with self.assertRaises(Unplantable):
                package().find("Candidate.tick", nothing, "True")


class Replacing(SynchronousTestCase):
    """What is planted."""

    def planted(self, code: str, old: str, new: str) -> str:
        """Return the function of *code* with the replacement."""
        here = package(one=dedent(code))
        kept = ast.dump(here.modules["one.py"].tree)

        text = here.find("f", old, new).planted()

        self.assertEqual(ast.dump(here.modules["one.py"].tree), kept)
        return text

    def assert_planted(self, code: str, old: str, new: str, expected: str) -> None:
        """Claim that the function becomes *expected*."""
        planted = self.planted(code, old, new)
        self.assertEqual(planted, ast.unparse(ast.parse(dedent(expected))))

    def test_names_and_gaps_are_those_of_the_code(self) -> None:
        """What names and gaps stood for is put in for them."""
        self.assert_planted(
            """
            def f(self, log):
                if log.last > self.server.commit:
                    log.cut()
                    return
            """,
            "if a.last > b.commit: ...",
            "if b.commit + 1 < a.last or b.old: ...",
            """
            def f(self, log):
                if self.server.commit + 1 < log.last or self.server.old:
                    log.cut()
                    return
            """,
        )

    def test_statements(self) -> None:
        """Of statements in a row some may go, or others come."""
        code = """
            def f(self):
                self.term = 1
                self.vote = None
                self.sync()
            """
        self.assert_planted(
            code,
            "a.term = 1\na.vote = None",
            "a.vote = None",
            "def f(self):\n    self.vote = None\n    self.sync()",
        )
        self.assert_planted(
            code,
            "self.sync()",
            "",
            "def f(self):\n    self.term = 1\n    self.vote = None",
        )

    def test_the_only_statement(self) -> None:
        """A block that would be empty passes."""
        self.assert_planted(
            "def f(self):\n    self.sync()", "x.sync()", "", "def f(self):\n    pass"
        )

    def test_gaps_of_two_kinds(self) -> None:
        """A block stays itself though an expression before it is dropped."""
        self.assert_planted(
            "def f(self):\n    a = self.b(1)\n    if a:\n        return a",
            "a = x.b(...)\nif a: ...",
            "a = x.c\nif a: ...",
            "def f(self):\n    a = self.c\n    if a:\n        return a",
        )

    def test_gap_of_a_block(self) -> None:
        """A block may be kept without its condition."""
        self.assert_planted(
            "def f(self):\n    if self.late:\n        a = 1\n        return a",
            "if self.late: ...",
            "...",
            "def f(self):\n    a = 1\n    return a",
        )

    def test_unknown_name_is_refused(self) -> None:
        """A name that only *new* has would be a NameError, caught by any test."""
        code = "def f(self, now):\n    return self.sent < 3"

        with self.assertRaisesRegex(Unplantable, "consensus, now is neither in"):
            self.planted(code, "self.sent < 3", "consensus.sent < now")
        self.planted(code, "x.sent < 3", "len([y for y in range(x.sent)])")
        self.planted(code, "x.sent < 3", "max(x.sent, 3, key=lambda z: z)")

    def test_value_that_nothing_reads_is_refused(self) -> None:
        """The code may call that variable otherwise, and the bug would be none."""
        code = "def f(self):\n    answer = self.ask()\n    return answer"

        with self.assertRaisesRegex(Unplantable, "reply is neither in"):
            self.planted(code, "answer = self.ask()", "reply = None")
        self.planted(code, "reply = self.ask()", "reply = None")
        self.planted(
            code, "reply = self.ask()", "now = self.now\nreply = self.ask(now)"
        )

    def test_more_gaps_than_there_were_are_refused(self) -> None:
        """Nothing is known that they could stand for."""
        with self.assertRaisesRegex(Unplantable, "more `...`"):
            self.planted("def f(self):\n    self.a(1)", "x.a(...)", "x.a(..., ...)")

    def test_no_python_is_refused(self) -> None:
        """What is planted must compile."""
        with self.assertRaises(SyntaxError):
            self.planted("def f(self):\n    self.a(1)", "x.a(1)", "continue")
