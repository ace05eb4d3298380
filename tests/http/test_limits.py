"""The limits as a value."""

from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from txraft.consistency import MAY_BE_ZERO
from txraft.errors import ConfigError
from txraft.http.limits import HTTPLimits


class Values(SynchronousTestCase):
    """Every limit is documented, and a set that contradicts itself is refused."""

    def test_every_limit_has_a_sentence(self) -> None:
        for each in fields(HTTPLimits):
            self.assertTrue(each.metadata["doc"].endswith("."), each.name)

    def test_every_limit_is_above_zero(self) -> None:
        """But those for which 0 has a meaning, and even they are not below."""
        for each in fields(HTTPLimits):
            least = -1 if each.name in MAY_BE_ZERO else 0
            error = self.assertRaises(ConfigError, HTTPLimits, **{each.name: least})
            self.assertIn(each.name, error.problems[0])

    def test_contradictions(self) -> None:
        for change, name in (
            ({"leader_wait": 11.0}, "leader_wait"),
            ({"max_value_bytes": 2 << 20}, "max_value_bytes"),
            ({"max_key_bytes": 4096}, "max_line_bytes"),
            ({"max_body_bytes": 1 << 30}, "max_bodies_bytes"),
            ({"drain_wait": 11.0}, "drain_timeout"),
            ({"max_answer_bytes": 1 << 30}, "max_unread_bytes"),
        ):
            error = self.assertRaises(ConfigError, HTTPLimits, **change)
            self.assertEqual(len(error.problems), 1)
            self.assertIn(name, error.problems[0])
