"""Sessions over HTTP, and their end on a clock that nobody waits for."""

from __future__ import annotations

import json
from uuid import UUID

from twisted.internet.defer import Deferred

from tests.support.http_network import HTTPCase, ScriptedNode, backup_of
from tests.support.turns import most_steps, steps_of
from txraft.errors import LeadershipLost, QueueFull
from txraft.http import expiry
from txraft.http.limits import HTTPLimits
from txraft.kv.commands import (
    CreateSession,
    Operation,
    encode_create_session,
    encode_destroy_sessions,
    encode_transact,
)
from txraft.kv.records import exact_id
from txraft.kv.verbs import OperationKind

MOST_STEPS = 15_000
"""Of one turn, of the functions of the package."""


class SessionCase(HTTPCase):
    def create(self, node: ScriptedNode | None = None, **fields: object) -> str:
        body = json.dumps(fields).encode() if fields else b""
        reply = self.reply(node or self.n1, "PUT", "/v1/session/create", body)
        self.assertEqual(reply.status, 200, reply.body)
        id: str = json.loads(reply.body)["ID"]
        return id

    def acquire(self, key: str, id: str) -> bool:
        reply = self.reply(self.n1, "PUT", f"/v1/kv/{key}?acquire={id}", b"")
        answer: bool = json.loads(reply.body)
        return answer

    def sessions(self, path: str = "list") -> list[dict[str, object]]:
        reply = self.reply(self.n1, "GET", f"/v1/session/{path}")
        self.assertEqual(reply.status, 200)
        listed: list[dict[str, object]] = json.loads(reply.body)
        return listed

    def renew(self, id: str, node: ScriptedNode | None = None) -> int:
        return self.reply(node or self.n1, "PUT", f"/v1/session/renew/{id}", b"").status


class Shapes(SessionCase):
    """What Consul documents."""

    def test_info(self) -> None:
        id = self.create(Name="n", TTL="1m30s", LockDelay="2s", Behavior="delete")

        self.assertEqual(
            self.sessions(f"info/{id}"),
            [
                {
                    "ID": id,
                    "Name": "n",
                    "Node": "n1:8300",
                    "LockDelay": 2_000_000_000,
                    "Behavior": "delete",
                    "TTL": "90s",
                    "Checks": None,
                    "NodeChecks": ["serfHealth"],
                    "ServiceChecks": None,
                    "CreateIndex": 2,
                    "ModifyIndex": 2,
                }
            ],
        )

    def test_defaults(self) -> None:
        self.create()

        (shape,) = self.sessions()

        self.assertEqual((shape["TTL"], shape["Behavior"]), ("", "release"))
        self.assertEqual(shape["LockDelay"], 15_000_000_000)

    def test_lists(self) -> None:
        body = b'{"Node": "x", "Address": "10.0.0.1"}'
        self.reply(self.n1, "PUT", "/v1/catalog/register", body)
        first, second = self.create(Node="x", Checks=[]), self.create()

        self.assertEqual([s["ID"] for s in self.sessions()], [first, second])
        self.assertEqual([s["ID"] for s in self.sessions("node/X")], [first])
        self.assertEqual([s["ID"] for s in self.sessions("node/n1:8300")], [second])
        self.assertEqual(self.sessions("info/unknown"), [])

    def test_destroy(self) -> None:
        id = self.create()

        for _ in range(2):
            reply = self.reply(self.n1, "PUT", f"/v1/session/destroy/{id}", b"")
            self.assertEqual((reply.status, reply.body), (200, b"true"))
        self.assertEqual(self.sessions(), [])

    def test_session_names_the_node_that_was_asked(self) -> None:
        id = self.create(self.n2, Name="n")

        self.assertEqual(self.n1.fsm.sessions[id].node, "n2:8300")

    def test_names_in_any_letter_case(self) -> None:
        id = self.create(name="n", TTL="10s", lockdelay=3, checks=["serfHealth"])

        session = self.n1.fsm.sessions[id]
        self.assertEqual((session.name, session.lock_delay_ms), ("n", 3000))

    def test_lock_delay_as_a_number(self) -> None:
        """Below 1000 it is seconds, else nanoseconds.  Source: Consul."""
        delays = [
            self.n1.fsm.sessions[self.create(LockDelay=delay)].lock_delay_ms
            for delay in (0, 2, 1_500_000_000, "90s")
        ]

        self.assertEqual(delays, [0, 2000, 1500, 60_000])

    def test_malformed(self) -> None:
        for fields in (
            {"TTL": []},
            {"TTL": 30},
            {"TTL": "10s", "TTLMultiplier": 3},
            {"TTL": "10s", "TTLMultiplier": True},
            {"LockDelay": -1},
            {"LockDelay": "1e9s"},
            {"NodeChecks": "serfHealth"},
            {"Checks": ["c"] * 65},
            {"ServiceChecks": ["serfHealth"]},
            {"ServiceChecks": {}},
            {"Name": "\ud800"},
            {"Name": "n" * 1025},
            {"Node": 1},
            [],
            "n",
        ):
            body = json.dumps(fields).encode()
            reply = self.reply(self.n1, "PUT", "/v1/session/create", body)
            self.assertEqual((fields, reply.status), (fields, 400))
        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_refused(self) -> None:
        """With 500 and these words, which Patroni looks for.  Source: Consul."""
        for fields, words in (
            ({"TTL": "9s"}, "Invalid Session TTL '9000000000', must be between "),
            ({"TTL": "86401s"}, "Invalid Session TTL '86401000000000'"),
            ({"Behavior": "keep"}, "Invalid Behavior setting 'keep'"),
            ({"TTL": "9.5s"}, "Invalid Session TTL '9500000000', must be between "),
            (
                {"TTL": "1ms"},
                "Invalid Session TTL '1000000', must be between [10s=24h0m0s]",
            ),
            ({"TTL": "soon"}, "Session TTL 'soon' invalid: time: invalid duration"),
            ({"Checks": ["mine"]}, "Missing check 'mine' registration"),
            ({"NodeChecks": [""]}, "Missing check '' registration"),
            ({"ServiceChecks": [{"ID": "web"}]}, "Missing check 'web' registration"),
            ({"Node": "unknown"}, "Missing node registration"),
        ):
            for node in (self.n1, self.n2):
                body = json.dumps(fields).encode()
                reply = self.reply(node, "PUT", "/v1/session/create", body)
                self.assertEqual((reply.status, reply.outcome), (500, "refused"))
                self.assertEqual(reply.body.decode()[: len(words)], words)
        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_shown_as_written(self) -> None:
        """TTL and LockDelay, whatever they mean.  Source: `structs.Session`."""
        self.n1.fsm.activate(1)
        for field, written, shown in (
            ("TTL", "1m", "1m"),
            ("TTL", "60s", "60s"),
            ("TTL", "10000ms", "10000ms"),
            ("TTL", "0s", "0s"),
            ("TTL", "", ""),
            ("LockDelay", "90s", 90_000_000_000),
            ("LockDelay", "100ns", 100_000_000_000),
            ("LockDelay", 15_000, 15_000),
            ("LockDelay", "9999999h", (1 << 63) - 1),
        ):
            (shape,) = self.sessions(f"info/{self.create(**{field: written})}")

            self.assertEqual((field, written, shape[field]), (field, written, shown))

    def test_checks(self) -> None:
        """Source: Consul's `TestSessionCreate_NoCheck`, `fixupEmptySessionChecks`."""
        self.n1.fsm.activate(1)
        serf = ["serfHealth"]
        for given, shown in (
            ({}, (None, serf, None)),
            ({"Checks": []}, (None, [], None)),
            ({"Checks": None}, (None, [], None)),
            ({"NodeChecks": []}, (None, [], None)),
            ({"NodeChecks": None}, (None, None, None)),
            ({"Checks": serf}, (None, serf, None)),
            ({"Checks": serf * 2}, (serf * 2, serf, None)),
            ({"Checks": serf * 2, "NodeChecks": []}, (None, [], None)),
            ({"ServiceChecks": []}, (None, serf, [])),
            (
                {"ServiceChecks": [{"ID": "serfHealth"}]},
                (None, serf, [{"ID": "serfHealth", "Namespace": ""}]),
            ),
        ):
            (shape,) = self.sessions(f"info/{self.create(**given)}")

            names = ("Checks", "NodeChecks", "ServiceChecks")
            self.assertEqual(
                (given, tuple(shape[name] for name in names)), (given, shown)
            )

    def test_checks_of_services(self) -> None:
        """They are critical where they are registered, and unknown elsewhere."""
        body = b'{"Name": "web", "Check": {"TTL": "10s"}}'
        self.reply(self.n1, "PUT", "/v1/agent/service/register", body)
        for node, words in (
            (self.n1, b"Check 'service:web' is in critical state\n"),
            (self.n2, b"Missing check 'service:web' registration\n"),
        ):
            wanted = b'{"Checks": ["service:web"]}'
            reply = self.reply(node, "PUT", "/v1/session/create", wanted)

            self.assertEqual((reply.status, reply.body), (500, words))

    def test_node(self) -> None:
        """A session is of a member or of a node that was registered here."""
        self.n1.change_members("n1:8300", "n2:8300")
        self.create(Node="N2:8300")

        self.create(self.n2, Node="n2:8300")
        body = json.dumps({"Node": "n1:8300"}).encode()
        reply = self.reply(self.n2, "PUT", "/v1/session/create", body)

        self.assertEqual(reply.body, b"Missing node registration\n")
        body = b'{"Node": "x", "Address": "10.0.0.1"}'
        self.reply(self.n1, "PUT", "/v1/catalog/register", body)
        self.create(Node="x", Checks=[])
        body = b'{"Node": "x"}'
        reply = self.reply(self.n1, "PUT", "/v1/session/create", body)
        self.assertEqual(reply.body, b"Missing check 'serfHealth' registration\n")

    def test_before_the_level_is_active(self) -> None:
        """Older releases could not apply what was written, so it is not told."""
        self.create(TTL="1m", Checks=[])
        self.n1.fsm.activate(1)
        self.create(TTL="1m", Checks=[])

        old, new = self.sessions()

        self.assertEqual((old["TTL"], old["NodeChecks"]), ("60s", ["serfHealth"]))
        self.assertEqual((new["TTL"], new["NodeChecks"]), ("1m", []))
        self.assertEqual([data[1] for data in self.n1.applied[:2]], [2, 3])

    def test_info_is_woken_by_its_session_alone(self) -> None:
        """Source: Consul's `SessionGet`."""
        mine, path = self.create(), "/v1/session/info/"
        index = self.reply(self.n1, "GET", path + mine).header("X-Consul-Index")
        waiting = self.ask(self.n1, "GET", f"{path}{mine}?index={index}")

        other = self.create()
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{other}", b"")
        self.advance(0)
        self.assertNoResult(waiting)
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{mine}", b"")
        self.advance(0)

        self.assertEqual(self.successResultOf(waiting).body, b"[]")

    def test_info_of_one_that_has_ended_is_answered_at_once(self) -> None:
        """Whoever knew it alive must not wait for what has happened already."""
        mine, path = self.create(), "/v1/session/info/"
        index = self.reply(self.n1, "GET", path + mine).header("X-Consul-Index")
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{mine}", b"")

        reply = self.reply(self.n1, "GET", f"{path}{mine}?index={index}")

        self.assertEqual(reply.body, b"[]")

    def test_lock_of_a_session_that_is_gone(self) -> None:
        """Its holder learns it by 500 and the words, on any node, and at once."""
        for node in (self.n1, self.n2):
            reply = self.reply(node, "PUT", "/v1/kv/k?acquire=gone", b"")
            self.assertEqual((reply.status, reply.outcome), (500, "refused"))
            self.assertEqual(reply.body, b'invalid session "gone"\n')

    def test_release_by_a_session_that_is_gone(self) -> None:
        self.acquire("k", self.create())

        for level in (0, 1):
            self.n1.fsm.activate(level)
            gone, none = (
                self.reply(self.n1, "PUT", f"/v1/kv/k?release={session}", b"")
                for session in ("gone", "")
            )
            self.assertEqual((gone.status, gone.body), (200, b"false"))
            self.assertEqual((none.status, none.body), (500, b"missing session\n"))


class Expiry(SessionCase):
    """The leader ends what was not renewed: never early, and hardly late."""

    def create(self, node: ScriptedNode | None = None, **fields: object) -> str:
        """Make a session that ends after one TTL, unless *fields* say otherwise."""
        return super().create(node, **{"TTLMultiplier": 1, **fields})

    def test_session_ends_at_twice_its_ttl(self) -> None:
        """Holders of locks rely on it.  Source: Consul's `SessionTTLMultiplier`."""
        id = SessionCase.create(self, TTL="10s")

        self.advance(*[0.5] * 30)
        self.assertEqual(self.renew(id), 200)
        self.advance(*[0.5] * 39)
        self.assertIn(id, self.n1.fsm.sessions)
        self.advance(*[0.5] * 3)

        self.assertNotIn(id, self.n1.fsm.sessions)

    def test_new_leader_ends_each_at_its_time(self) -> None:
        """What was asked for is in the state, and every leader finds it there."""
        twice, once = self.create(TTL="10s", TTLMultiplier=2), self.create(TTL="10s")
        self.n1.follow("n2:8300")
        self.n1.lead()

        self.advance(*[0.5] * 22)
        self.assertEqual(list(self.n1.fsm.sessions), [twice])
        self.advance(*[0.5] * 20)

        self.assertEqual(list(self.n1.fsm.sessions), [])
        self.assertNotEqual(once, twice)

    def test_session_ends_after_its_ttl_where_that_was_asked_for(self) -> None:
        id = self.create(TTL="10s", LockDelay="0s")
        self.acquire("k", id)

        self.advance(*[0.5] * 19)
        self.assertIn(id, self.n1.fsm.sessions)
        self.advance(*[0.5] * 3)

        self.assertNotIn(id, self.n1.fsm.sessions)
        record = self.n1.fsm.get("k")
        assert record is not None
        self.assertEqual(record.session, "")

    def test_session_without_ttl_lives_on(self) -> None:
        self.create()

        self.advance(*[0.5] * 200)

        self.assertEqual(len(self.sessions()), 1)

    def test_renewal_on_any_node(self) -> None:
        id = self.create(TTL="10s")
        for node in (self.n1, self.n2) * 3:
            self.advance(*[0.5] * 18)
            self.assertEqual(self.renew(id, node), 200)

        self.advance(*[0.5] * 22)

        self.assertEqual(self.renew(id), 404)

    def test_new_leader_lets_every_ttl_begin_anew(self) -> None:
        """It cannot know what the old one has renewed."""
        id = self.create(TTL="10s")
        self.advance(*[0.5] * 19)
        self.n1.follow("n2:8300")
        self.n1.lead()

        self.advance(*[0.5] * 19)
        self.assertIn(id, self.n1.fsm.sessions)
        self.advance(*[0.5] * 3)
        self.assertNotIn(id, self.n1.fsm.sessions)

    def test_follower_ends_nothing(self) -> None:
        self.create(TTL="10s")
        self.n1.follow("n2:8300")
        committed = len(self.n1.applied)

        self.advance(*[0.5] * 60)

        self.assertEqual(len(self.n1.applied), committed)

    def test_leader_that_was_stopped_forgives_that_while(self) -> None:
        """The renewals of that while may still be unread in its sockets."""
        id = self.create(TTL="10s")
        self.advance(*[0.5] * 4)

        self.advance(60)
        self.assertIn(id, self.n1.fsm.sessions)
        self.advance(*[0.5] * 14)
        self.assertIn(id, self.n1.fsm.sessions)
        self.advance(*[0.5] * 4)
        self.assertNotIn(id, self.n1.fsm.sessions)

    def test_end_that_fails_is_decided_anew(self) -> None:
        id = self.create(TTL="10s")
        self.n1.script = [LeadershipLost()]

        self.advance(*[0.5] * 23)

        self.assertEqual(self.n1.script, [])
        self.assertNotIn(id, self.n1.fsm.sessions)

    def test_renewal_never_succeeds_for_what_is_about_to_end(self) -> None:
        """Whoever is told that the session lives may rely on it for a whole TTL."""
        id = self.create(TTL="10s")
        end: Deferred[object] = Deferred()
        self.n1.script = [end]
        self.advance(*[0.5] * 21)
        self.assertEqual(self.n1.script, [])

        ordered: Deferred[object] = Deferred()
        self.n1.script = [ordered]
        renewed = self.ask(self.n1, "PUT", f"/v1/session/renew/{id}", b"")
        self.assertNoResult(renewed)
        self.assertEqual(self.n1.barriers, 1)
        end.callback(None)
        ordered.callback(None)
        self.network.flush()

        self.assertEqual(self.successResultOf(renewed).status, 404)

    def test_renewal_at_work_is_not_overtaken(self) -> None:
        """It came in time, however long the quorum takes to confirm the leader."""
        id = self.create(TTL="10s")
        self.advance(*[0.5] * 19)
        confirmed: Deferred[object] = Deferred()
        self.n1.script = [confirmed]
        renewed = self.ask(self.n1, "PUT", f"/v1/session/renew/{id}", b"")

        self.advance(*[0.5] * 6)
        confirmed.callback(None)
        self.network.flush()

        self.assertEqual(self.successResultOf(renewed).status, 200)
        self.assertIn(id, self.n1.fsm.sessions)

    def test_idle_node_has_no_timer(self) -> None:
        id = self.create(TTL="10s", LockDelay="1s")
        self.acquire("k", id)
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{id}", b"")

        self.advance(*[0.5] * 30)

        self.assertEqual(self.clock.getDelayedCalls(), [])


class Many(SessionCase):
    """Thousands that are due together end within the second that is promised."""

    def create_many(self, count: int, ttl_ms: int = 10_000) -> None:
        for number in range(count):
            made = CreateSession(_exact(number), "", "", 0, False, ttl_ms)
            self.n1.commit(encode_create_session(made))

    def lock_many(self, count: int, **fields: object) -> str:
        id = self.create(**fields)
        for number in range(count):
            lock = Operation(OperationKind.LOCK, f"k/{number}", session=id)
            self.n1.commit(encode_transact([lock]))
        return id

    def wait(self, seconds: float) -> int:
        """Let time pass, turn by turn; return the steps of the longest turn."""
        most = 0
        for _ in range(round(seconds / 0.1)):
            self.clock.rightNow += 0.1
            most = max(most, most_steps(self.clock, lambda: None))
        return most

    def test_sessions(self) -> None:
        self.create_many(5000)

        self.assertLess(self.wait(11), MOST_STEPS)

        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_sessions_of_a_new_leader(self) -> None:
        self.create_many(5000)
        self.n1.follow("n2:8300")
        self.advance(*[0.5] * 30)
        self.assertEqual(steps_of(self.n1.lead) // 1000, 0)

        self.assertLess(self.wait(9.9), MOST_STEPS)
        self.assertEqual(len(self.n1.fsm.sessions), 5000)
        self.assertLess(self.wait(1.1), MOST_STEPS)

        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_sessions_that_hold_locks(self) -> None:
        """One entry ends few sessions if they hold much: it is applied in one step."""
        self.create_many(20)
        for number in range(3000):
            lock = Operation(
                OperationKind.LOCK, f"{number}", session=_exact(number % 20)
            )
            self.n1.commit(encode_transact([lock]))

        self.assertLess(self.wait(11), MOST_STEPS)

        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_lock_delays(self) -> None:
        id = self.lock_many(5000, LockDelay="1s")
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{id}", b"")
        self.assertEqual(len(self.n1.fsm.delays), 5000)

        self.assertLess(self.wait(0.9), MOST_STEPS)
        self.assertEqual(len(self.n1.fsm.delays), 5000)
        self.assertLess(self.wait(1.1), MOST_STEPS)

        self.assertEqual(dict(self.n1.fsm.delays), {})
        self.advance(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lock_delays_on_a_clock_that_never_stands(self) -> None:
        """The next piece is due at once, although time goes on within a turn."""
        id = self.lock_many(5000, LockDelay="1s")
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{id}", b"")

        def seconds() -> float:
            self.clock.rightNow += 1e-6
            return self.clock.rightNow

        self.patch(self.clock, "seconds", seconds)

        self.wait(2.0)

        self.assertEqual(dict(self.n1.fsm.delays), {})

    def test_lock_delays_of_which_some_fail_to_end(self) -> None:
        id = self.lock_many(3000, LockDelay="1s")
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{id}", b"")
        self.n1.script = [QueueFull("full"), QueueFull("full")]

        self.wait(2.5)

        self.assertEqual(self.n1.script, [])

        self.assertEqual(dict(self.n1.fsm.delays), {})

    def test_commands_on_their_way_are_bounded(self) -> None:
        """Those for which there is no room follow as soon as there is."""
        self.patch(expiry, "TURN_ITEMS", 10)
        self.create_many(1000)
        held: list[Deferred[object]] = [Deferred() for _ in range(100)]
        self.n1.script = list(held)
        self.wait(11)
        self.assertEqual(len(self.n1.script), 100 - expiry.MAX_PROPOSED)

        for each in held:
            each.callback(None)
            most_steps(self.clock, lambda: None)

        self.assertEqual(dict(self.n1.fsm.sessions), {})

    def test_ended_sessions_are_forgotten(self) -> None:
        """Those that end by themselves, long before their TTL, leave nothing behind."""
        self.create_many(1)
        agenda = self.network.agents["n1:8500"]._rootResource._expiry._agenda
        for number in range(5000):
            made = CreateSession(f"t{number}", "", "", 0, False, 86_400_000)
            self.n1.commit(encode_create_session(made))
            self.n1.commit(encode_destroy_sessions([f"t{number}"]))

        self.assertLess(len(agenda), 1200)
        self.assertLess(len(agenda._heap), 2500)

    def test_backup_replaces_what_can_end(self) -> None:
        backup = backup_of(self.n1.fsm)
        self.create_many(3)
        self.work(self.ask(self.n1, "PUT", "/v1/snapshot", backup))
        self.create_many(2)

        self.advance(*[0.5] * 22)

        self.assertEqual(dict(self.n1.fsm.sessions), {})


class ShorterTTL(SessionCase):
    """The shortest TTL is a setting, which clients ask for."""

    limits = HTTPLimits(session_ttl_min=1.5)

    def test_session_ttl_min(self) -> None:
        self.create(TTL="1500ms")
        short = self.reply(self.n1, "PUT", "/v1/session/create", b'{"TTL": "1s"}')

        self.assertEqual(
            short.body,
            b"Invalid Session TTL '1000000000', must be between [1.5s=24h0m0s]\n",
        )

    def test_self(self) -> None:
        """`SessionTTLMin` is nanoseconds.  Source: Consul."""
        told = json.loads(self.reply(self.n1, "GET", "/v1/agent/self").body)

        self.assertEqual(told["Config"]["SessionTTLMin"], 1_500_000_000)


def _exact(number: int) -> str:
    """Make an id that says that the session ends after its TTL."""
    return exact_id(str(UUID(int=number)))


class LockDelays(SessionCase):
    """The leader's clock decides when a lock can be taken again."""

    def test_lock_delay(self) -> None:
        first, second = self.create(LockDelay="5s"), self.create()
        self.acquire("k", first)
        self.reply(self.n1, "PUT", f"/v1/session/destroy/{first}", b"")

        self.advance(*[0.5] * 9)
        early = self.acquire("k", second)
        self.advance(*[0.5] * 3)
        late = self.acquire("k", second)

        self.assertEqual((early, late), (False, True))
