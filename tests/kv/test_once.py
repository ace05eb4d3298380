"""Commands that are done once, however often they are sent."""

from twisted.trial.unittest import SynchronousTestCase

from tests.kv.test_levels import active
from tests.support.kv_commands import Machine, session
from txraft.errors import ApplicationError
from txraft.kv import once
from txraft.kv.commands import (
    Operation,
    encode_delete,
    encode_once,
    encode_put,
    encode_transact,
)
from txraft.kv.verbs import OperationKind


def numbered(sequence: int, command: bytes, client: str = "c") -> bytes:
    return encode_once(client, sequence, command)


class Once(SynchronousTestCase):
    """A repetition gets the first result and changes nothing."""

    def test_repetition(self) -> None:
        machine = Machine()
        cas = encode_transact([Operation(OperationKind.CAS, "k", b"1")])

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


class Digests(SynchronousTestCase):
    """At level 1 another command under a used number is refused."""

    def test_another_command(self) -> None:
        machine = active(encode_once("c", 1, encode_put("k", b"1"), 1))

        refused = machine.apply(encode_once("c", 1, encode_put("k", b"2"), 1))

        self.assertIsInstance(refused, once.SequenceUsed)
        record = machine.fsm.get("k")
        assert record is not None
        self.assertEqual(record.value, b"1")

    def test_what_was_done_before_the_level_is_not_compared(self) -> None:
        """Nobody has kept what it was."""
        machine = active(numbered(1, encode_put("k", b"1")))

        self.assertIs(machine.apply(encode_once("c", 1, encode_delete("k"), 1)), True)
        self.assertEqual(list(machine.fsm), ["k"])

    def test_old_command_is_not_compared(self) -> None:
        """It may have been on its way when the level was activated."""
        machine = active(encode_once("c", 1, encode_put("k", b"1"), 1))

        self.assertIs(machine.apply(numbered(1, encode_delete("k"))), True)
        self.assertEqual(list(machine.fsm), ["k"])

    def test_transaction_is_the_same_at_any_level(self) -> None:
        """It is what was asked for that counts, not how it is written."""
        operations = [Operation(OperationKind.SET, "k")]
        machine = active(encode_once("c", 1, encode_transact(operations), 1))

        again = machine.apply(encode_once("c", 1, encode_transact(operations, 1), 1))

        self.assertNotIsInstance(again, ApplicationError)

    def test_digests_are_forgotten_with_their_results(self) -> None:
        machine = active()
        for sequence in range(1, once.WINDOW + 9):
            machine.apply(encode_once("c", sequence, encode_delete("k"), 1))

        client = machine.fsm._state.results.clients()["c"]

        self.assertEqual(client.digests.keys(), client.results.keys())


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
