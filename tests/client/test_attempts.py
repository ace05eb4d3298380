"""Attempts: the order of nodes, repetition, and the truth about the outcome."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.web.http import Request

from tests.support.client_cluster import ClientCase, answer, record, silence
from txraft.client import ClientLimits, OutcomeUnknown, Refused, Unavailable
from txraft.client.nodes import Nodes

NOT_APPLIED = answer(500, b"No leader.\n", X_Txraft_Outcome="not-applied")
UNKNOWN = answer(500, b"The outcome is unknown.\n", X_Txraft_Outcome="unknown")
TRUE = answer(200, b"true")
FULL = answer(507, b"max_state_keys is 3", X_Txraft_Outcome="not-applied")
FOUND = answer(200, [record("k", b"v")], X_Consul_Index="7")


class Attempts(ClientCase):
    """A call goes on to the next node only when that does no harm."""

    def test_write_not_sent_is_tried_elsewhere(self) -> None:
        """A node that is not reached has done nothing."""
        self.network.refusing = {"a"}
        self.b.script = [TRUE]

        self.assertIs(self.done(self.client.put("k", b"v")), True)
        self.assertEqual(self.b.bodies, [b"v"])

    def test_write_not_applied_is_tried_again(self) -> None:
        """`not-applied` is the node's word that a second attempt is the first."""
        self.a.script = [NOT_APPLIED]
        self.b.script = [TRUE]

        self.assertIs(self.done(self.client.put("k", b"v")), True)

    def test_refusal_stands(self) -> None:
        """`refused` is the node's word that a second attempt would end in the same."""
        self.a.script = [
            answer(500, b'invalid session "s"\n', X_Txraft_Outcome="refused")
        ]

        error = self.failed(self.client.put("k", b"", acquire="s"), Refused)

        self.assertEqual((error.status, error.sentence), (500, 'invalid session "s"'))
        self.assertEqual(self.b.asked, [])

    def test_write_without_an_answer_is_never_sent_twice(self) -> None:
        """Nobody knows if it was applied: the caller is told, and decides."""
        for lose in (self._lose_answers, self._answer_unknown, self._answer_no_outcome):
            lose()
            for write in (
                lambda: self.client.put("k", b"v"),
                lambda: self.client.cas("k", b"v", 3),
                lambda: self.client.delete("k"),
            ):
                client = self.client = self.make_client()
                before = sum(len(n.asked) for n in self.network.nodes.values())
                self.failed(write(), OutcomeUnknown)
                after = sum(len(n.asked) for n in self.network.nodes.values())
                self.assertEqual(after - before, 1, client)

    def _lose_answers(self) -> None:
        self.network.losing = {"a"}

    def _answer_unknown(self) -> None:
        self.network.losing = set()
        self.a.default = UNKNOWN

    def _answer_no_outcome(self) -> None:
        self.a.default = answer(500, b"oops")

    def test_write_that_takes_too_long_is_unknown(self) -> None:
        """When time is up, a request that was sent may still be applied."""
        self.a.script = [silence]
        put = self.client.put("k", b"v")

        self.pass_time(self.limits.timeout + 0.1)

        self.failed(put, OutcomeUnknown)
        self.assertEqual(self.b.asked + self.c.asked, [])

    def test_read_is_tried_everywhere(self) -> None:
        """A read does no harm twice."""
        self.network.losing = {"a"}
        self.a.script = [FOUND]
        self.b.script = [answer(500, b"oops")]
        self.c.script = [FOUND]

        self.assertEqual(self.done(self.client.get("k")).value, b"v")

    def test_read_leaves_a_silent_node(self) -> None:
        """A node that answers nothing costs a read `read_timeout`, not all its time."""
        self.a.script = [silence]
        self.b.script = [FOUND]
        read = self.client.get("k")

        self.pass_time(self.limits.read_timeout + 0.1)

        self.assertEqual(self.done(read).value, b"v")

    def test_reason_of_what_is_unknown(self) -> None:
        """It is that of the attempt whose fate is not known, not of the last one."""
        self.a.script = [
            answer(504, b"The leader was lost.", X_Txraft_Outcome="unknown")
        ]
        for node in (self.a, self.b, self.c):
            node.default = NOT_APPLIED
        put = self.client.put("k", b"", acquire="s")

        self.pass_time(self.limits.timeout + 1)

        error = self.failed(put, OutcomeUnknown)
        self.assertIn("The leader was lost", str(error))
        self.assertNotIn("No leader.", str(error))

    def test_acquire_is_tried_again(self) -> None:
        """A session that has the lock gets it once more."""
        self.network.losing = {"a"}
        self.a.script = [TRUE]
        self.b.script = [TRUE]

        self.assertIs(self.done(self.client.put("k", b"", acquire="s")), True)

    def test_nobody_there(self) -> None:
        """After its time a call says that nothing was changed, and by whom not."""
        self.network.refusing = {"a", "b", "c"}
        put = self.client.put("k", b"v")

        self.pass_time(self.limits.timeout + 3)

        self.assertIn("nothing was changed", str(self.failed(put, Unavailable)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_node_without_a_leader_answers_before_time_is_up(self) -> None:
        """However much time is left, no attempt ends before its node has answered."""
        self.network.refusing = {"b", "c"}
        waits: list[float] = []

        def waiting(request: Request) -> None:
            told = float(request.getHeader("X-Txraft-Wait").removesuffix("ms")) / 1000
            waits.append(told)
            # As a node does that knows no leader, and then tries one that is gone.
            late = min(told / 2, 1.9)
            self.clock.callLater(min(told, 5.0) + late, NOT_APPLIED, request)

        self.a.default = waiting
        for timeout in (0.4, 1.0, 2.0, 5.0, 7.5, 10.0, 15.0, 30.0):
            self.limits = ClientLimits(timeout=timeout)
            for write in (
                lambda: self.make_client().put("k", b"v"),
                lambda: self.make_client(exactly_once=True).put("k", b"v"),
                lambda: self.make_client().put("k", b"v", acquire="s"),
            ):
                waits.clear()
                asked = write()
                self.pass_time(timeout + 1)
                self.failed(asked, Unavailable)
                self.assertGreaterEqual(len(waits), 1)

        self.assertGreater(len(waits), 3)

    def test_no_attempt_at_a_write_is_too_short(self) -> None:
        """The last moment is not enough for an answer to come."""
        self.network.refusing = {"b", "c"}
        begun: list[float] = []

        def note(request: Request) -> None:
            begun.append(self.clock.seconds())
            NOT_APPLIED(request)

        self.a.default = note
        put = self.client.put("k", b"v")
        self.pass_time(20)

        self.failed(put, Unavailable)
        self.assertLess(max(begun), self.limits.timeout - 1)

    def test_rounds_become_rarer(self) -> None:
        """Each round of attempts waits twice as long as the one before it."""
        for node in (self.a, self.b, self.c):
            node.default = NOT_APPLIED
        put = self.client.put("k", b"v")

        self.pass_time(1.45)
        self.assertEqual(len(self.a.asked), 4)

        self.pass_time(20)
        self.failed(put, Unavailable)
        self.assertLess(len(self.a.asked), 12)


class ExactlyOnce(ClientCase):
    """Writes that are numbered may be sent again."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.make_client(exactly_once=True)
        self.numbers: list[tuple[str, str]] = []

    def noting(self, step: object) -> object:
        """Note under which number a request came, then answer."""

        def note(request: object) -> None:
            names = ("X-Txraft-Client", "X-Txraft-Sequence")
            self.numbers.append(tuple(request.getHeader(n) for n in names))
            step(request)

        return note

    def test_sent_again_under_its_number(self) -> None:
        """The second attempt is known for the first; the next write is another."""
        self.network.losing = {"a"}
        self.a.script = [self.noting(TRUE)]
        self.b.default = self.noting(TRUE)

        self.assertIs(self.done(self.client.put("k", b"v")), True)
        self.done(self.client.delete("k"))

        clients, sequences = zip(*self.numbers, strict=True)
        self.assertEqual(sequences, ("1", "1", "2"))
        self.assertEqual(len(set(clients)), 1)

    def test_reads_are_not_numbered(self) -> None:
        """What changes nothing takes no number."""
        self.a.default = self.noting(FOUND)

        self.done(self.client.get("k"))

        self.assertEqual(self.numbers, [(None, None)])

    def test_forgotten(self) -> None:
        """When the cluster does not know the first attempt any more, nobody does."""
        self.network.losing = {"a"}
        self.a.script = [TRUE]
        self.b.script = [answer(400, b"the sequence 1 is too old")]

        self.failed(self.client.put("k", b"v"), OutcomeUnknown)

    def test_quota(self) -> None:
        """To ask again is of no use, and it is the answer."""
        self.a.script = [FULL]

        refused = self.failed(self.client.put("k", b"v"), Refused)

        self.assertIn("507", str(refused))

    def test_quota_after_an_attempt_without_an_answer(self) -> None:
        """The first may have been let in, and is not taken back by the second."""
        self.network.losing = {"a"}
        self.a.script = [TRUE]
        self.b.script = [FULL]

        self.failed(self.client.put("k", b"v"), OutcomeUnknown)

    def test_out_of_time(self) -> None:
        """A write that was sent and never answered is not said to be without effect."""
        for node in (self.a, self.b, self.c):
            node.default = UNKNOWN
        put = self.client.put("k", b"v")

        self.pass_time(20)

        self.failed(put, OutcomeUnknown)

    def test_out_of_time_after_others_refused(self) -> None:
        """One attempt that may have worked is not forgotten for those that did not."""
        self.a.script = [UNKNOWN]
        for node in (self.a, self.b, self.c):
            node.default = NOT_APPLIED
        put = self.client.put("k", b"v")

        self.pass_time(20)

        self.failed(put, OutcomeUnknown)


class TheLeader(ClientCase):
    """Where the leader is, as forwarded answers tell."""

    def test_followed(self) -> None:
        """A forwarded answer names the leader, who is asked from then on."""
        self.a.default = answer(200, b"true", X_Txraft_Leader="http://c")
        self.c.default = TRUE

        for _ in range(3):
            self.done(self.client.put("k", b"v"))

        self.assertEqual((len(self.a.asked), len(self.c.asked)), (1, 2))

    def test_out_of_reach(self) -> None:
        """An advertised address that this client cannot reach costs one attempt."""
        self.a.default = answer(200, b"true", X_Txraft_Leader="http://inside:8500")

        for _ in range(3):
            self.assertIs(self.done(self.client.put("k", b"v")), True)

        asked = [host for host in self.network.tried if host != "a"]
        self.assertEqual((len(self.a.asked), asked), (3, ["inside:8500"]))

    def test_less_secure(self) -> None:
        """A client that was given https addresses is not led to a plain one."""
        nodes = Nodes(["https://a", "https://b"], self.clock, 60.0)

        nodes.led_by("http://c")
        self.assertEqual(nodes.choose(), "https://a")

        nodes.led_by("https://c")
        self.assertEqual(nodes.choose(), "https://c")

    def test_gone(self) -> None:
        """A leader that dies is followed no more."""
        self.a.default = answer(200, b"true", X_Txraft_Leader="http://c")
        self.done(self.client.put("k", b"v"))
        self.network.refusing = {"c"}

        self.assertIs(self.done(self.client.put("k", b"v")), True)


class Cancelling(ClientCase):
    """A call that nobody waits for any more."""

    limits = ClientLimits(retry_interval=1.0)

    def test_cancel_an_attempt(self) -> None:
        """The call ends at once, and asks nobody else."""
        self.a.script = [silence]
        read = self.client.get("k")
        self.network.flush()

        read.cancel()

        self.failed(read, CancelledError)
        self.assertEqual(self.b.asked, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel_between_attempts(self) -> None:
        """So it does while it waits for the next round."""
        self.network.refusing = {"a", "b", "c"}
        put = self.client.put("k", b"v")

        put.cancel()

        self.failed(put, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Answers(ClientCase):
    """Bounds on what is read."""

    limits = ClientLimits(max_answer_bytes=1000, timeout=1.0)

    def test_too_long(self) -> None:
        """An answer beyond the bound is dropped, and no part of it is handed out."""
        for node in (self.a, self.b, self.c):
            node.default = answer(200, [record("k", bytes(2000))], X_Consul_Index="7")
        read = self.client.get("k")

        self.pass_time(3)

        self.assertIn("max_answer_bytes", str(self.failed(read, Unavailable)))
