"""Sessions, their locks and lock delays, as commands make and end them."""

from twisted.trial.unittest import SynchronousTestCase

from tests.kv.commands import Machine, session
from txraft.errors import ApplicationError
from txraft.kv import state as state_module
from txraft.kv.commands import (
    Kind,
    Operation,
    encode_destroy_sessions,
    encode_end_delays,
    encode_put,
)
from txraft.kv.records import Delay, Record, Session


def lock(key: str, id: str) -> Operation:
    return Operation(Kind.LOCK, key, b"v", session=id)


class Sessions(SynchronousTestCase):
    """Nothing but a command begins or ends a session."""

    def test_create(self) -> None:
        machine = Machine()

        answer = machine.apply(session("s", 15_000, True, 10_000))

        self.assertEqual(answer, "s")
        self.assertEqual(
            dict(machine.fsm.sessions),
            {"s": Session("name", "node", 15_000, True, 10_000, 1, 1)},
        )
        self.assertEqual((machine.fsm.session_index, machine.fsm.index), (1, 0))

    def test_create_twice_is_refused(self) -> None:
        machine = Machine(session("s"))

        self.assertIsInstance(machine.apply(session("s")), ApplicationError)

    def test_create_too_many_is_refused(self) -> None:
        self.patch(state_module, "MAX_SESSIONS", 1)
        machine = Machine(session("s"))

        self.assertIsInstance(machine.apply(session("t")), ApplicationError)

    def test_destroy_releases_locks(self) -> None:
        machine = Machine(session("s"), session("t"))
        machine.do(lock("k", "s"), lock("l", "s"), lock("m", "t"))

        machine.apply(encode_destroy_sessions(["s", "s", "unknown"]))

        self.assertEqual(list(machine.fsm.sessions), ["t"])
        for key in ("k", "l"):
            self.assertEqual(machine.fsm.get(key), Record(key, b"v", 0, 3, 4, 1, ""))
        self.assertEqual(machine.fsm.get("m"), Record("m", b"v", 0, 3, 3, 1, "t"))
        self.assertEqual((machine.fsm.index, machine.fsm.session_index), (4, 4))

    def test_destroy_deletes_if_the_session_says_so(self) -> None:
        machine = Machine(session("s", deletes=True), encode_put("other", b""))
        machine.do(lock("k", "s"))

        machine.apply(encode_destroy_sessions(["s"]))

        self.assertEqual(list(machine.fsm), ["other"])

    def test_destroy_leaves_what_was_released_or_deleted(self) -> None:
        machine = Machine(session("s", deletes=True))
        machine.do(lock("free", "s"), lock("gone", "s"), lock("again", "s"))
        machine.do(
            Operation(Kind.UNLOCK, "free", b"v", session="s"),
            Operation(Kind.DELETE, "gone"),
            Operation(Kind.DELETE, "again"),
        )
        machine.apply(encode_put("again", b"new"))

        machine.apply(encode_destroy_sessions(["s"]))

        self.assertEqual(list(machine.fsm.keys()), ["again", "free"])


class LockDelays(SynchronousTestCase):
    """A lock that was taken from its holder stays free for a while."""

    def test_delay_ends_by_a_command(self) -> None:
        machine = Machine(session("s", 1000), session("t"))
        machine.do(lock("k", "s"))
        machine.apply(encode_destroy_sessions(["s"]))
        self.assertEqual(dict(machine.fsm.delays), {"k": Delay(4, 1000)})

        early = machine.succeeds(lock("k", "t"))
        machine.apply(encode_end_delays([("k", 3), ("x", 4)]))
        other = machine.succeeds(lock("k", "t"))
        machine.apply(encode_end_delays([("k", 4)]))
        late = machine.succeeds(lock("k", "t"))

        self.assertEqual([early, other, late], [False, False, True])

    def test_no_delay_after_a_release(self) -> None:
        """Whoever releases a lock knows that it has stopped.  Source: Consul."""
        machine = Machine(session("s", 1000), session("t"))
        machine.do(lock("k", "s"))

        machine.do(Operation(Kind.UNLOCK, "k", session="s"))

        self.assertTrue(machine.succeeds(lock("k", "t")))

    def test_delay_hinders_no_writes(self) -> None:
        machine = Machine(session("s", 1000))
        machine.do(lock("k", "s"))
        machine.apply(encode_destroy_sessions(["s"]))

        self.assertTrue(machine.succeeds(Operation(Kind.SET, "k", b"new")))
