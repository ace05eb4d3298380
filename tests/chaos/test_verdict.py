"""The verdict finds the lies of a store that is in one place and tells them by plan."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from random import Random
from urllib.parse import parse_qs, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.api import Answer
from tests.chaos.history import History
from tests.chaos.verdict import difference, judge, unexpected
from tests.chaos.workloads import Asks, Session, Workload

OPERATIONS = 400
LIES_TOLD = 5
TRUE, FALSE = Answer(200, b"true"), Answer(200, b"false")


class Store:
    """Answers like a node that is alone and honest."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[str, int]] = {}
        self.index = 0
        self.results: dict[str, Answer] = {}

    def __call__(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Do one thing."""
        parts = urlsplit(path)
        key, query = parts.path.removeprefix("kv/"), parse_qs(parts.query)
        if method == "GET":
            return self.read(key)
        once = json.dumps(headers) if headers else None
        if once is not None and once in self.results:
            return self.results[once]
        answer = self.change(key, body, query.get("cas"))
        if once is not None:
            self.results[once] = answer
        return answer

    def read(self, key: str) -> Answer:
        """Answer a read."""
        if key not in self.records:
            return Answer(404)
        value, index = self.records[key]
        encoded = b64encode(value.encode()).decode()
        record = {"Value": encoded, "ModifyIndex": index}
        return Answer(200, json.dumps([record]).encode())

    def change(self, key: str, body: str | None, cas: list[str] | None) -> Answer:
        """Set or delete, on a condition or without one."""
        self.index += 1
        if cas is not None and self.records.get(key, ("", 0))[1] != int(cas[0]):
            return FALSE
        if body is None:
            self.records.pop(key, None)
        else:
            self.records[key] = (body, self.index)
        return TRUE


class Lying(Store):
    """A store that tells a lie a few times, when *lie* finds an occasion.

    A few, because what was forgotten may be overwritten before anybody looks.
    """

    def __init__(self, lie: Callable[[Lying, str, str, str | None], Answer | None]):
        super().__init__()
        self.lie = lie
        self.asked = 0
        self.lies = 0
        self.before: dict[str, tuple[str, int]] = {}

    def __call__(
        self,
        method: str,
        path: str,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Do one thing, or say so."""
        self.asked += 1
        if self.lies < LIES_TOLD and self.asked > OPERATIONS // 4:
            answer = self.lie(self, method, path, body)
            if answer is not None:
                self.lies += 1
                return answer
        self.before = dict(self.records)
        return super().__call__(method, path, body, headers)


def forget_a_write(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Acknowledge a write, and do not do it."""
    return TRUE if method == "PUT" and "cas" not in path else None


def forget_an_append(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Acknowledge an append, and do not do it."""
    return TRUE if method == "PUT" and "kv/l" in path else None


def forget_a_deletion(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Acknowledge a deletion of what is there, and do not do it."""
    there = path.removeprefix("kv/") in store.records
    return TRUE if method == "DELETE" and there else None


def do_what_was_refused(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Say that a write was not done and never will be, and do it."""
    if method != "PUT" or "cas" in path:
        return None
    Store.__call__(store, method, path, body)
    return Answer(500, outcome="not-applied")


def refuse_what_was_done(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Do an append and say that its condition did not hold."""
    if method != "PUT" or "kv/l" not in path:
        return None
    Store.__call__(store, method, path, body)
    return FALSE


def refuse_for_nothing(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Say of a condition that holds that it does not."""
    return FALSE if method == "PUT" and "kv/c" in path else None


def read_what_was(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Answer a read with what was there before the last change."""
    key = urlsplit(path).path.removeprefix("kv/")
    if method != "GET" or store.before.get(key) == store.records.get(key):
        return None
    current, store.records = store.records, store.before
    answer = store.read(key)
    store.records = current
    return answer


def do_it_twice(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Append the same item twice."""
    if method != "PUT" or "kv/l" not in path or body is None:
        return None
    return Store.__call__(store, method, path, f"{body} {body.split()[-1]}")


def restore_all(
    store: Lying, method: str, path: str, body: str | None
) -> Answer | None:
    """Fall back to an older state, all of it."""
    if len(store.records) < 3:
        return None
    store.records = {key: ("1", index) for key, (_, index) in store.records.items()}
    return Answer(0)


LIES = (
    forget_a_write,
    forget_an_append,
    forget_a_deletion,
    do_what_was_refused,
    refuse_what_was_done,
    refuse_for_nothing,
    read_what_was,
    do_it_twice,
    restore_all,
)


def told(store: Asks, seed: int = 1) -> History:
    """Let two clients, in turn, ask *store* for much, and read all at the end."""
    history, random, workload = History(), Random(seed), Workload()
    sessions = [Session(f"s{number}", history, store) for number in range(2)]
    for _ in range(OPERATIONS):
        workload.act(random.choice(sessions), random)
    for key in {operation.key for operation in history.operations}:
        sessions[0].read(key, is_list=key.startswith("l"))
    return history


class Verdict(SynchronousTestCase):
    """What is found in histories."""

    def test_honest(self) -> None:
        """Nothing is found in what an honest store tells, and nothing is undecided."""
        for seed in range(5):
            judgement = judge(told(Store(), seed))

            self.assertEqual((judgement.found, judgement.undecided), ([], 0))

    def test_lies(self) -> None:
        """A few lies among hundreds of answers are found, whichever they are."""
        for lie in LIES:
            store = Lying(lie)

            judgement = judge(told(store))

            self.assertGreater(store.lies, 0, lie.__name__)
            self.assertNotEqual(judgement.found, [], lie.__name__)

    def test_unknown_outcomes(self) -> None:
        """An answer that was lost accuses nobody, whether it was done or not."""
        for seed in range(5):
            store, random = Store(), Random(seed)

            def unreliable(
                method: str,
                path: str,
                body: str | None = None,
                headers: dict[str, str] | None = None,
                store: Store = store,
                random: Random = random,
            ) -> Answer:
                chance = random.random()
                if chance < 0.1:
                    return Answer(0)
                answer = store(method, path, body, headers)
                return answer if chance < 0.9 else Answer(500, outcome="unknown")

            judgement = judge(told(unreliable, seed))

            self.assertEqual((judgement.found, judgement.undecided), ([], 0))

    def test_list_that_nobody_could_begin(self) -> None:
        """A list is read as empty where every attempt to append was refused."""

        def refusing(
            method: str,
            path: str,
            body: str | None = None,
            headers: dict[str, str] | None = None,
        ) -> Answer:
            return Answer(404 if method == "GET" else 500, outcome="not-applied")

        history = History()

        Session("s", history, refusing).append("l0")

        self.assertEqual(judge(history).found, [])

    def test_impossible_answer(self) -> None:
        """An answer that no node may give to a right request is a finding."""
        history = History()
        session = Session("s", history, lambda *_: Answer(400, b"no"))

        session.write("x")

        self.assertEqual(len(judge(history).found), 1)


class States(SynchronousTestCase):
    """What is said of states that are not equal."""

    def test_difference(self) -> None:
        """It tells each node's own records, not those that all have."""
        states = {1: [{"Key": "a"}], 2: [{"Key": "a"}, {"Key": "b"}]}

        text = difference(states)

        self.assertIn("n1 has 0 of its own", text)
        self.assertIn("n2 has 1 of its own, {'Key': 'b'}", text)

    def test_silent(self) -> None:
        """Who does not answer is named."""
        self.assertIn("n2", difference({1: [], 2: None}))


class Outputs(SynchronousTestCase):
    """What is found in what nodes write."""

    TRACEBACK = (
        "before\n\tTraceback (most recent call last):\n\t  File 'a', line 1, in b\n"
        "\t    c()\n\t{}\n\t\nafter\n"
    )

    def test_traceback(self) -> None:
        """A traceback is a finding."""
        [found] = unexpected(self.TRACEBACK.format("builtins.KeyError: 'x'"))

        self.assertIn("KeyError", found)

    def test_failure_of_a_disk(self) -> None:
        """That of a node that stops as its disk has failed is none."""
        line = "builtins.OSError: [Errno 5] Input/output error"

        self.assertEqual(unexpected(self.TRACEBACK.format(line)), [])

    def test_failure_of_a_disk_hides_no_other(self) -> None:
        """One excuse is for one traceback."""
        disk = self.TRACEBACK.format("builtins.OSError: [Errno 28] No space left")
        other = self.TRACEBACK.format("builtins.KeyError: 'x'")

        self.assertEqual(len(unexpected(disk + other + disk)), 1)

    def test_unhandled(self) -> None:
        """A Deferred whose failure nobody took is a finding."""
        self.assertEqual(len(unexpected("a\nUnhandled error in Deferred:\nb\n")), 1)
