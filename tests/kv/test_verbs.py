"""The table of verbs: every part of the program follows it."""

from __future__ import annotations

from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

import txraft.http
from txraft.client.results import Operation
from txraft.kv import operations
from txraft.kv.verbs import GROWS, INDEXED, TREES, VALUES, VERBS, WRITES, OperationKind


class Table(SynchronousTestCase):
    """One row for each verb."""

    def test_names_are_unique(self) -> None:
        """No two verbs have one name in the API."""
        self.assertEqual(len(VERBS), len(OperationKind))

    def test_each_verb_has_a_function(self) -> None:
        """By the rules of every level there is a function that does it."""
        for functions in operations._LEVELS:
            self.assertEqual(set(functions), set(OperationKind))

    def test_rules_of_a_level_differ_where_they_are_told_to(self) -> None:
        """Only locks and unlocks have rules of their own from level 1 on."""
        plain, first = operations._LEVELS

        changed = {kind for kind in OperationKind if plain[kind] is not first[kind]}

        self.assertEqual(changed, {OperationKind.LOCK, OperationKind.UNLOCK})

    def test_traits(self) -> None:
        """What logs and quotas rely on stays as it is."""
        self.assertEqual([kind.value for kind in OperationKind], list(range(1, 14)))
        self.assertEqual(names(WRITES - GROWS), "delete delete-cas delete-tree")
        self.assertEqual(names(GROWS), "cas lock set unlock")
        self.assertEqual(names(TREES), "delete-tree get-tree")
        self.assertEqual(names(VALUES), "get get-or-empty get-tree")
        self.assertEqual(names(INDEXED), "cas check-index delete-cas")

    def test_api_lists_the_same_verbs(self) -> None:
        """The description of the API offers every verb and no other."""
        described = Path(txraft.http.__file__).with_name("openapi.yaml").read_text()

        self.assertIn(list(VERBS), list(lists(yaml.safe_load(described))))

    def test_client_knows_which_verbs_read(self) -> None:
        """A verb that the client does not know may write."""
        reads = {verb for verb in [*VERBS, "new"] if Operation(verb, "k").reads}

        self.assertEqual(reads, set(VERBS) - {kind.verb for kind in WRITES})


def names(kinds: frozenset[OperationKind]) -> str:
    """Write the names of *kinds*, in order."""
    return " ".join(sorted(kind.verb for kind in kinds))


def lists(value: object) -> list[list[object]]:
    """Find all lists in *value*."""
    found: list[list[object]] = []
    if isinstance(value, dict):
        for each in value.values():
            found += lists(each)
    elif isinstance(value, list):
        found.append(value)
        for each in value:
            found += lists(each)
    return found
