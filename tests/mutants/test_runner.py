"""A bug is caught by a claim that is untrue, not by a name that is unknown."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from twisted.internet.defer import succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import copy_of_package, failed_tests
from tests.mutants.runner import PACKAGE, Result, causes, watch_failures


def error(kind: type[BaseException]) -> BaseException:
    """Return an error that was raised."""
    try:
        raise kind("as planted")
    except kind as raised:
        return raised


def case(name: str) -> TestCase:
    """Return a test of that name."""
    made = TestCase()
    made.id = lambda: name  # type: ignore[method-assign]
    return made


class Noting(SynchronousTestCase):
    """The errors that are noted for a test that fails."""

    def noted(self, raised: BaseException) -> str:
        """Return what is noted for a test that ends with an error."""
        result = Result()
        ended = case("test")
        result.startTest(ended)
        result.addError(ended, (type(raised), raised, raised.__traceback__))
        return result.failed["test"]

    def test_failed_claim(self) -> None:
        """What a test is for is a catch."""
        self.assertEqual(self.noted(error(AssertionError)), "")
        self.assertEqual(self.noted(error(ValueError)), "")

    def test_stumbling(self) -> None:
        """Errors about names, attributes and imports are not."""
        for kind in (NameError, UnboundLocalError, AttributeError, ModuleNotFoundError):
            self.assertEqual(self.noted(error(kind)), f"{kind.__name__}('as planted')")

    def test_cause(self) -> None:
        """Nor is anything that came of such an error."""
        claim = error(AssertionError)
        claim.__cause__ = error(ValueError)
        claim.__cause__.__context__ = error(NameError)

        self.assertEqual(self.noted(claim), "NameError('as planted')")

    def test_causes_in_a_circle(self) -> None:
        """Each error is looked at once."""
        claim = error(AssertionError)
        claim.__context__ = error(ValueError)
        claim.__context__.__cause__ = claim

        self.assertEqual(len(list(causes(claim))), 2)

    def test_failure_that_is_thrown_away(self) -> None:
        """It is noted though nobody tells of it, up to the end of its test."""
        self.patch(Failure, "__init__", Failure.__init__)  # is put back afterwards
        result = Result()
        watch_failures(result)
        first, second = case("first"), case("second")
        code = compile("planted", f"{PACKAGE}/planted.py", "exec")
        claim = error(AssertionError)

        result.startTest(first)
        succeed(None).addCallback(lambda _: exec(code)).addErrback(lambda _: None)
        result.addFailure(first, (type(claim), claim, claim.__traceback__))
        result.startTest(second)
        result.addFailure(second, (type(claim), claim, claim.__traceback__))

        noted = "NameError(\"name 'planted' is not defined\")"
        self.assertEqual(result.failed, {"first": noted, "second": ""})

    def test_errors_of_tests_themselves(self) -> None:
        """A Failure that the code under test did not raise says nothing."""
        result = Result()
        result.failure_made(error(AttributeError))
        claim = error(AssertionError)
        result.addFailure(case("test"), (type(claim), claim, claim.__traceback__))

        self.assertEqual(result.failed, {"test": ""})


class Planted(SynchronousTestCase):
    """Bugs that stumble, in a copy of the package."""

    def test_what_stumbles_is_not_caught(self) -> None:
        """The test fails, and it is told over what."""
        mutant = next(m for m in MUTANTS if m.at == "Candidate.synced")
        stumbling = replace(mutant, new=f"{mutant.old}_no_more")
        with copy_of_package() as root:
            stumbling.plant(root)
            failed = failed_tests(root, [mutant.caught_by])

        self.assertIn("AttributeError", failed[mutant.caught_by])
