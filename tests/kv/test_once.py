"""Commands that are done once, however often they are sent."""

from twisted.trial.unittest import SynchronousTestCase

from tests.kv.commands import Machine, session
from txraft.errors import ApplicationError
from txraft.kv import once
from txraft.kv.commands import (
    Kind,
    Operation,
    encode_delete,
    encode_once,
    encode_put,
    encode_transact,
)


def numbered(sequence: int, command: bytes, client: str = "c") -> bytes:
    return encode_once(client, sequence, command)


class Once(SynchronousTestCase):
    """A repetition gets the first result and changes nothing."""

    def test_repetition(self) -> None:
        machine = Machine()
        cas = encode_transact([Operation(Kind.CAS, "k", b"1")])

        first = machine.apply(numbered(1, cas))
        machine.apply(encode_delete("k"))
        second = machine.apply(numbered(1, cas))

        self.assertEqual(first, second)
        self.assertFalse(first.errors)
        self.assertIs(machine.fsm.get("k"), None)

    def test_numbers_and_clients_are_apart(self) -> None:
        machine = Machine()
        for sequence, client in ((1, "c"), (2, "c"), (1, "d")):
            machine.apply(encode_delete("k"))
            machine.apply(numbered(sequence, encode_put("k", b"v"), client))

            self.assertIsNot(machine.fsm.get("k"), None)

    def test_new_session_keeps_its_id(self) -> None:
        """The repetition of a creation brings another id, and gets the first."""
        machine = Machine()

        answers = [machine.apply(numbered(1, session(id))) for id in ("s", "t")]

        self.assertEqual(answers, ["s", "s"])
        self.assertEqual(list(machine.fsm.sessions), ["s"])

    def test_refusal_is_not_remembered(self) -> None:
        """It has changed nothing, so it may be tried anew."""
        machine = Machine(numbered(1, session("s")), encode_put("k", b""))

        refused = machine.apply(numbered(2, session("s")))
        done = machine.apply(numbered(2, encode_put("k", b"v")))

        self.assertIsInstance(refused, ApplicationError)
        self.assertIs(done, True)

    def test_order_does_not_matter_within_the_window(self) -> None:
        machine = Machine()
        for sequence in (5, 3, 4):
            self.assertIs(machine.apply(numbered(sequence, encode_delete("k"))), True)


class Bounds(SynchronousTestCase):
    """What is forgotten is refused rather than done twice."""

    def test_window(self) -> None:
        machine = Machine()
        for sequence in range(1, once.WINDOW + 2):
            machine.apply(numbered(sequence, encode_put("k", b"%d" % sequence)))
        before = machine.fsm.get("k")

        forgotten = machine.apply(numbered(1, encode_put("k", b"again")))
        known = machine.apply(numbered(2, encode_put("k", b"again")))

        self.assertIsInstance(forgotten, ApplicationError)
        self.assertIn("too old", str(forgotten))
        self.assertIs(known, True)
        self.assertEqual(machine.fsm.get("k"), before)

    def test_clients(self) -> None:
        """The client that was not heard longest is forgotten first."""
        self.patch(once, "MAX_CLIENTS", 2)
        machine = Machine()
        for client, sequence in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
            machine.apply(numbered(sequence, encode_delete("k"), client))

        self.assertEqual(list(machine.fsm._state.results.clients()), ["a", "c"])

    def test_bytes(self) -> None:
        self.patch(once, "MAX_REMEMBERED_BYTES", 100)
        results = once.Results()
        for client in "abc":
            results.remember(client, 1, bytes(50))

        self.assertEqual(list(results.clients()), ["b", "c"])
