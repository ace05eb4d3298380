"""Sessions, their locks and lock delays, as commands make and end them."""

from functools import partial
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kv_commands import Machine, session
from tests.support.turns import steps_of
from txraft.errors import ApplicationError
from txraft.kv import state as state_module
from txraft.kv.commands import (
    Operation,
    encode_destroy_sessions,
    encode_end_delays,
    encode_put,
)
from txraft.kv.records import Delay, Record, Session
from txraft.kv.verbs import OperationKind
from txraft.kv.watches import Scope, Topic


def lock(key: str, id: str) -> Operation:
    return Operation(OperationKind.LOCK, key, b"v", session=id)


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
            Operation(OperationKind.UNLOCK, "free", b"v", session="s"),
            Operation(OperationKind.DELETE, "gone"),
            Operation(OperationKind.DELETE, "again"),
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

        machine.do(Operation(OperationKind.UNLOCK, "k", session="s"))

        self.assertTrue(machine.succeeds(lock("k", "t")))

    def test_delay_hinders_no_writes(self) -> None:
        machine = Machine(session("s", 1000))
        machine.do(lock("k", "s"))
        machine.apply(encode_destroy_sessions(["s"]))

        self.assertTrue(machine.succeeds(Operation(OperationKind.SET, "k", b"new")))


SCOPES = (Scope.KEY, Scope.PREFIX)


class Many(SynchronousTestCase):
    """A session that holds thousands of locks ends in a step that is cheap per key."""

    def machine(self, count: int, deletes: bool) -> Machine:
        machine = Machine(session("s", 1000, deletes))
        for number in range(count):
            machine.do(lock(f"{number:05d}", "s"))
        return machine

    def assert_cheap(self, deletes: bool) -> None:
        machine = self.machine(3000, deletes)
        end = encode_destroy_sessions(["s"])

        steps = steps_of(lambda: machine.apply(end))

        # To ask the dict of delays is one; a sum of lengths takes two.
        self.assertLess(steps, 5 * 3000)
        self.assertEqual(len(machine.fsm.delays), 3000)

    def test_end_takes_few_steps_for_each_lock(self) -> None:
        """Twenty of them were a turn of 0.4 s for 20 000 keys."""
        self.assert_cheap(deletes=False)
        self.assert_cheap(deletes=True)

    def test_end_is_the_same_as_one_by_one(self) -> None:
        """Of as many sessions with a lock each, but for the order of their ends."""
        for deletes in (False, True):
            one, each = self.machine(9, deletes), Machine()
            for number in range(9):
                each.apply(session(f"s{number}", 1000, deletes))
            each.index = 1
            for number in range(9):
                each.do(lock(f"{number:05d}", f"s{number}"))

            one.apply(encode_destroy_sessions(["s"]))
            each.apply(encode_destroy_sessions([f"s{number}" for number in range(9)]))

            self.assertEqual(list(one.fsm.records()), list(each.fsm.records()))
            self.assertEqual(dict(one.fsm.delays), dict(each.fsm.delays))
            self.assertEqual(one.fsm.state_bytes, each.fsm.state_bytes)
            self.assertEqual(one.fsm.locks_held("s"), 0)

    def test_end_wakes_who_watches(self) -> None:
        """One of the keys, or a prefix of it, however few or many watch."""
        texts = ("00007", "0000", "")
        for others in (0, 99):
            machine, woken = self.machine(50, False), list[str]()
            for scope, text in product(SCOPES, texts):
                wake = partial(woken.append, f"{scope.name} {text}")
                machine.fsm.watches.add(Topic(scope, text), wake)
            for number in range(others):
                topic = Topic(Scope.KEY, f"other{number}")
                machine.fsm.watches.add(topic, partial(woken.append, "other"))

            machine.apply(encode_destroy_sessions(["s"]))

            names = {f"{s.name} {t}" for s, t in product(SCOPES, texts)}
            self.assertEqual(set(woken), names - {"KEY 0000", "KEY "})
