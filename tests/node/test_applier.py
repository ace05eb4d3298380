"""The applier: in order, in short slices, one entry at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.core.entry import Entry, LogType
from txraft.errors import ApplicationError, ContractBroken, LogNotFound
from txraft.node.applier import FSM_FAILED, HALF_APPLIED, LOG_UNREADABLE, Applier

SLICE = 0.005


class ScriptedFSM:
    """Answers each command as `answers` says, by default with its index."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.answers: dict[int, Callable[[], object]] = {}

    def apply(self, log: Entry) -> object:
        self.applied.append(log.index)
        answer = self.answers.get(log.index)
        return log.index if answer is None else answer()


class BatchFSM(ScriptedFSM):
    """Takes batches and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []
        self.extra: list[object] = []

    def apply_batch(self, logs: Sequence[Entry]) -> list[object]:
        self.batches.append([log.index for log in logs])
        return [self.apply(log) for log in logs] + self.extra


class ResultFSM(ScriptedFSM):
    """Answers every batch with *result*."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def apply_batch(self, logs: Sequence[Entry]) -> object:
        return self.result


class EarlyFSM(ScriptedFSM):
    """Takes batches, and ends each with the first Deferred of *deferreds*."""

    def __init__(self, deferreds: dict[int, Deferred[object]]) -> None:
        super().__init__()
        self.deferreds = deferreds

    def apply_batch(self, logs: Sequence[Entry]) -> list[object]:
        answers: list[object] = []
        for log in logs:
            answer = self.deferreds.get(log.index)
            answers.append(self.apply(log) if answer is None else answer)
            if answer is not None:
                self.applied.append(log.index)
                break
        return answers


def raising(error: type[BaseException]) -> Callable[[], object]:
    """Make an answer that raises *error*."""

    def answer() -> object:
        raise error

    return answer


class ApplierCase(SynchronousTestCase):
    def build(self, fsm: ScriptedFSM | None = None, commands: int = 10) -> None:
        self.clock = Clock()
        self.fsm = fsm or ScriptedFSM()
        self.log = [Entry(i, 1, LogType.COMMAND, b"") for i in range(1, commands + 1)]
        self.settled: list[tuple[int, object]] = []
        self.failed: list[tuple[str, Failure]] = []
        self.applier = Applier(
            self.fsm,  # type: ignore[arg-type]
            clock=self.clock,
            slice_seconds=SLICE,
            fetch=self.fetch,
            settled=self.settle,
            failed=lambda reason, failure: self.failed.append((reason, failure)),
            applied_index=0,
        )

    def fetch(self, first: int, last: int) -> list[Entry] | Deferred[list[Entry]]:
        return self.log[first - 1 : last]

    def settle(self, entries: Sequence[Entry], responses: Sequence[object]) -> None:
        for entry, response in zip(entries, responses, strict=True):
            self.settled.append((entry.index, response))

    def turn(self) -> None:
        """Make the one call that is due, and none that it makes due."""
        [call] = self.clock.getDelayedCalls()
        make = call.func
        call.cancel()
        make()

    def takes(self, seconds: float) -> Callable[[], object]:
        """Make an answer that takes *seconds* of the clock."""

        def answer() -> None:
            self.clock.rightNow += seconds

        return answer


class Order(ApplierCase):
    def test_advance_applies_up_to_the_commit_index(self) -> None:
        """Nothing beyond it, and nothing twice."""
        self.build()

        self.applier.advance(3)
        self.applier.advance(2)
        self.applier.advance(5)

        self.assertEqual(self.fsm.applied, [1, 2, 3, 4, 5])
        self.assertEqual(self.settled, [(i, i) for i in range(1, 6)])
        self.assertEqual(self.applier.backlog, 0)

    def test_only_commands_reach_the_fsm(self) -> None:
        """Other entries are settled in their place; barriers count as commands do."""
        self.build()
        for index, kind in [(2, LogType.NOOP), (3, LogType.BARRIER)]:
            self.log[index - 1].type = kind

        self.applier.advance(3)

        self.assertEqual(self.fsm.applied, [1])
        self.assertEqual([index for index, _ in self.settled], [1, 2, 3])
        self.assertEqual(self.applier.last_command_index, 3)

    def test_application_error_is_the_response(self) -> None:
        """A refusal goes to the caller and stops nothing."""
        self.build()
        refusal = ApplicationError("no")

        def refuse() -> object:
            raise refusal

        self.fsm.answers = {2: refuse, 3: lambda: fail(refusal)}
        self.applier.advance(4)

        self.assertEqual(self.settled, [(1, 1), (2, refusal), (3, refusal), (4, 4)])
        self.assertEqual(self.failed, [])

    def test_any_other_exception_is_the_end(self) -> None:
        """The replica may differ from its peers: nothing after it is applied."""
        for answer in (lambda: 1 / 0, lambda: fail(ZeroDivisionError())):
            self.build()
            self.fsm.answers = {2: answer}

            self.applier.advance(4)
            self.clock.advance(1)

            self.assertEqual(self.fsm.applied, [1, 2])
            [(reason, failure)] = self.failed
            where = f"entry 2 (term 1, COMMAND, 0 bytes, digest {sha256().hexdigest()})"
            self.assertEqual(reason, FSM_FAILED.format(where=where))
            failure.trap(ZeroDivisionError)

    def test_out_of_memory_is_named(self) -> None:
        """It is this node's own trouble, and no sign that replicas differ."""
        for make in (ScriptedFSM, BatchFSM):
            self.build(make())
            self.fsm.answers = {2: raising(MemoryError)}

            self.applier.advance(4)
            self.clock.advance(1)

            [(reason, failure)] = self.failed
            self.assertIn("out of memory while applying", reason)
            self.assertNotIn("differ", reason)
            failure.trap(MemoryError)

    def test_what_is_no_exception_is_the_end_too(self) -> None:
        """SystemExit and its like leave half a command done, as any other."""
        for error in (SystemExit, KeyboardInterrupt, GeneratorExit):
            self.build()
            self.fsm.answers = {2: raising(error)}

            self.applier.advance(4)
            self.clock.advance(1)

            self.assertEqual(self.fsm.applied, [1, 2])
            [(_, failure)] = self.failed
            failure.trap(error)
            self.assertFalse(self.applier._applying)

    def test_invariant_that_breaks_while_an_entry_is_settled(self) -> None:
        """Nobody knows what is half done: it is the end, whoever called."""

        def settle(entries: Sequence[Entry], responses: Sequence[object]) -> None:
            raise AssertionError("no")

        self.build()
        self.applier.settled = settle

        self.applier.advance(4)

        self.assertEqual([reason for reason, _ in self.failed], [HALF_APPLIED])

    def test_coroutine_is_awaited(self) -> None:
        """`async def apply`: its result is the response, and the next entry waits."""
        self.build()
        step: Deferred[str] = Deferred()

        async def later() -> object:
            self.fsm.applied.append(-2)
            return await step

        async def refusing() -> object:
            raise refusal

        refusal = ApplicationError("no")
        self.fsm.answers = {2: later, 3: refusing}

        self.applier.advance(4)
        self.assertEqual(self.fsm.applied, [1, 2, -2])
        step.callback("done")

        self.assertEqual(self.fsm.applied, [1, 2, -2, 3, 4])
        self.assertEqual(self.settled, [(1, 1), (2, "done"), (3, refusal), (4, 4)])

    def test_coroutine_that_fails(self) -> None:
        """It is as if `apply` had raised, with SystemExit too."""

        async def dividing() -> object:
            return 1 / 0

        async def exiting() -> object:
            raise SystemExit(1)

        for answer in (dividing, exiting):
            self.build()
            self.fsm.answers = {2: answer}
            self.applier.advance(4)
            self.assertEqual(self.fsm.applied, [1, 2])
            self.assertEqual(len(self.failed), 1)

    def test_future_is_awaited(self) -> None:
        """One of asyncio, as with Twisted's reactor for it."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        future: asyncio.Future[str] = loop.create_future()
        self.build()
        self.fsm.answers = {2: lambda: future}

        self.applier.advance(4)
        self.assertEqual(self.fsm.applied, [1, 2])
        future.set_result("done")
        loop.run_until_complete(asyncio.sleep(0))

        self.assertEqual(self.settled[1], (2, "done"))
        self.assertEqual(self.fsm.applied, [1, 2, 3, 4])

    def test_generator_has_done_nothing(self) -> None:
        """A forgotten `inlineCallbacks` is no response."""

        def generating() -> Iterator[object]:
            yield 1

        self.build()
        self.fsm.answers = {2: generating}

        self.applier.advance(4)

        [(_, failure)] = self.failed
        failure.trap(ContractBroken)
        self.assertIn("ScriptedFSM.apply returned a generator", str(failure.value))
        self.assertEqual(self.settled, [(1, 1)])

    def test_deferred_response_holds_up_the_next_entry(self) -> None:
        """Order is kept: the next entry is applied when the response is there."""
        self.build()
        response: Deferred[object] = Deferred()
        self.fsm.answers = {2: lambda: response}

        self.applier.advance(4)
        self.applier.advance(5)
        self.assertEqual(self.fsm.applied, [1, 2])
        self.assertEqual(self.applier.applied_index, 1)
        response.callback("late")

        self.assertEqual(self.fsm.applied, [1, 2, 3, 4, 5])
        self.assertEqual(self.settled[1], (2, "late"))

    def test_deferreds_that_have_fired_do_not_pile_up_on_the_stack(self) -> None:
        """Thousands of responses that are there at once are taken in a loop."""
        self.build(commands=3000)
        self.fsm.answers = {i: lambda: succeed("now") for i in range(1, 3001)}

        self.applier.advance(3000)

        self.assertEqual(self.applier.applied_index, 3000)
        self.assertEqual(self.failed, [])

    def test_deferred_that_fires_after_stop_is_dropped(self) -> None:
        """A stopped node settles nothing."""
        self.build()
        response: Deferred[object] = Deferred()
        self.fsm.answers = {1: lambda: response}
        self.applier.advance(2)

        self.applier.stop()
        response.callback(None)

        self.assertEqual((self.fsm.applied, self.settled), ([1], []))

    def test_stop_from_a_response_is_obeyed_at_once(self) -> None:
        """Whoever is told of an outcome may shut the node down."""
        for kind in (LogType.COMMAND, LogType.BARRIER):
            self.build()
            self.log[1].type = kind
            self.settle = lambda entries, _: (  # type: ignore[method-assign]
                self.applier.stop() if entries[-1].index == 2 else None
            )
            self.applier.settled = self.settle

            self.applier.advance(4)
            self.clock.advance(1)

            self.assertEqual(self.applier.applied_index, 2)
            self.assertNotIn(3, self.fsm.applied)


class Slices(ApplierCase):
    def test_slow_commands_give_way_after_a_slice(self) -> None:
        """No more than a slice and one command run before others have a turn."""
        self.build()
        self.fsm.answers = {i: self.takes(0.002) for i in range(1, 11)}

        self.applier.advance(10)
        self.assertEqual(self.fsm.applied, [1, 2, 3])
        self.turn()
        self.assertEqual(self.fsm.applied, [1, 2, 3, 4, 5, 6])
        self.turn()
        self.turn()

        self.assertEqual(self.applier.applied_index, 10)

    def apply_batches(self, seconds: float, commands: int) -> list[int]:
        """Apply *commands*, each of which takes *seconds*; return sizes of batches."""
        self.build(BatchFSM(), commands)
        for index in range(1, commands + 1):
            self.fsm.answers[index] = self.takes(seconds)

        self.applier.advance(commands)
        while self.clock.getDelayedCalls():
            self.turn()

        self.assertEqual(self.applier.applied_index, commands)
        assert isinstance(self.fsm, BatchFSM)
        return [len(batch) for batch in self.fsm.batches]

    def test_batches_of_quick_commands_grow(self) -> None:
        """A batching FSM gets at most 256 commands at once, and fewer at first."""
        sizes = self.apply_batches(0, commands=800)

        self.assertEqual(sizes, [16, 32, 64, 128, 16, 256, 256, 32])

    def test_batches_of_slow_commands_shrink(self) -> None:
        """So that one batch is not longer than the slice that it is in."""
        sizes = self.apply_batches(0.001, commands=100)

        self.assertEqual(sizes[:5], [16, 8, 4, 2, 2])
        self.assertEqual(max(sizes[3:]), 2)
        self.assertEqual(self.apply_batches(1, commands=20), [16, 4])
        self.assertEqual(
            self.apply_batches(1, commands=35), [16, 8, 4, 2, 1, 1, 1, 1, 1]
        )

    def test_batches_give_way_after_a_slice(self) -> None:
        """Others have a turn once a slice is over."""
        self.build(BatchFSM(), commands=600)
        self.fsm.answers = {1: self.takes(0.01)}

        self.applier.advance(600)
        self.assertEqual(self.applier.applied_index, 16)
        self.clock.advance(0)

        self.assertEqual(self.applier.applied_index, 600)

    def test_entries_in_the_store_are_waited_for(self) -> None:
        """What is no longer in memory is read, and applied in order with the rest."""
        self.build()
        read: Deferred[list[Entry]] = Deferred()
        from_memory = self.fetch
        self.applier._fetch = lambda first, last: (
            read if first == 1 else from_memory(first, last)
        )

        self.applier.advance(4)
        self.assertEqual(self.fsm.applied, [])
        read.callback(self.log[:2])

        self.assertEqual(self.fsm.applied, [1, 2, 3, 4])

    def test_log_that_cannot_be_read_is_named_as_such(self) -> None:
        """The state machine is not blamed for the disk."""
        self.build()
        self.applier._fetch = lambda first, last: fail(LogNotFound(first))

        self.applier.advance(4)

        self.assertEqual([reason for reason, _ in self.failed], [LOG_UNREADABLE])


class Batches(ApplierCase):
    def test_commands_between_others_are_one_batch(self) -> None:
        """An entry of another type ends a batch."""
        self.build(BatchFSM(), commands=5)
        self.log[2].type = LogType.NOOP

        self.applier.advance(5)

        assert isinstance(self.fsm, BatchFSM)
        self.assertEqual(self.fsm.batches, [[1, 2], [4, 5]])
        self.assertEqual([i for i, _ in self.settled], [1, 2, 3, 4, 5])

    def test_refusal_in_a_batch_is_that_commands_response(self) -> None:
        """An ApplicationError in the list stops nothing."""
        self.build(BatchFSM())
        refusal = ApplicationError("no")
        self.fsm.answers = {2: lambda: refusal}

        self.applier.advance(3)

        self.assertEqual(self.settled, [(1, 1), (2, refusal), (3, 3)])

    def test_wrong_number_of_responses_is_the_end(self) -> None:
        """Which response is whose cannot be told, so nobody is answered."""
        self.build(BatchFSM())
        assert isinstance(self.fsm, BatchFSM)
        self.fsm.extra = ["one too many"]

        self.applier.advance(3)

        where = "one of the entries 1 to 3 (terms 1 to 1, COMMAND, 0 bytes together)"
        [(reason, failure)] = self.failed
        self.assertEqual(reason, FSM_FAILED.format(where=where))
        self.assertEqual(
            str(failure.value),
            "BatchFSM.apply_batch returned 4 responses to 3 commands",
        )
        self.assertEqual(self.settled, [])

    def test_what_is_no_sequence_is_the_end(self) -> None:
        """Nor is half of one that is to come."""

        async def one() -> object:
            return 1

        for result in (
            None,
            iter([1, 2, 3]),
            {1: 1},
            [1, one(), 3],
            [1, Deferred(), 3],
        ):
            fsm = ResultFSM(result)
            self.build(fsm)

            self.applier.advance(3)

            [(_, failure)] = self.failed
            failure.trap(ContractBroken)
            self.assertIn("ResultFSM.apply_batch returned", str(failure.value))
            self.assertEqual(self.settled, [])
        self.assertEqual(self.flushWarnings(), [])

    def test_batch_that_is_awaited(self) -> None:
        """All responses come later, and what follows waits for them."""
        whole: Deferred[object] = Deferred()

        async def batch() -> object:
            return await whole

        self.build(ResultFSM(batch()), commands=5)
        self.log[3].type = LogType.BARRIER

        self.applier.advance(4)
        self.assertEqual(self.settled, [])
        whole.callback([1, 2, 3])

        self.assertEqual([index for index, _ in self.settled], [1, 2, 3, 4])

    def test_batch_that_is_awaited_in_vain(self) -> None:
        """One that fails, or gives what is not one response each, is the end."""
        for outcome in (fail(ZeroDivisionError()), succeed(None), succeed([1, 2])):
            self.build(ResultFSM(outcome))

            self.applier.advance(3)

            self.assertEqual(len(self.failed), 1)
            self.assertEqual(self.settled, [])

    def test_coroutine_ends_a_batch_early(self) -> None:
        """As a Deferred does."""
        step: Deferred[object] = Deferred()

        async def later() -> object:
            return await step

        self.build(ResultFSM([1, later()]), commands=3)

        self.applier.advance(3)
        self.assertEqual(self.settled, [(1, 1)])
        assert isinstance(self.fsm, ResultFSM)
        self.fsm.result = [3]
        step.callback(2)

        self.assertEqual(self.settled, [(1, 1), (2, 2), (3, 3)])


class Pausing(ApplierCase):
    def test_deferred_ends_a_batch_early(self) -> None:
        """What follows it waits for it, and is given again."""
        held: Deferred[object] = Deferred()
        self.build(EarlyFSM({3: held, 4: succeed("at once")}), commands=6)

        self.applier.advance(6)
        self.assertEqual(self.settled, [(1, 1), (2, 2)])
        held.callback("late")

        self.assertEqual(
            self.settled[2:], [(3, "late"), (4, "at once"), (5, 5), (6, 6)]
        )
        self.assertEqual(self.fsm.applied, [1, 2, 3, 4, 5, 6])

    def test_deferred_refusal_in_a_batch(self) -> None:
        refusal = ApplicationError("no")
        self.build(EarlyFSM({1: fail(refusal)}), commands=2)

        self.applier.advance(2)

        self.assertEqual(self.settled, [(1, refusal), (2, 2)])

    def test_pause_fires_at_once_when_nothing_runs(self) -> None:
        """Then nothing is applied until `resume`."""
        self.build()

        self.successResultOf(self.applier.pause())
        self.applier.advance(2)
        self.assertEqual(self.fsm.applied, [])
        self.applier.resume()

        self.assertEqual(self.fsm.applied, [1, 2])

    def test_pause_waits_for_a_deferred_response(self) -> None:
        """The FSM is left alone only when its last command has settled."""
        self.build()
        response: Deferred[object] = Deferred()
        self.fsm.answers = {1: lambda: response}
        self.applier.advance(3)

        idle = self.applier.pause()
        self.assertNoResult(idle)
        response.callback(None)

        self.successResultOf(idle)
        self.assertEqual(self.fsm.applied, [1])

    def test_response_in_a_pause_is_told_of(self) -> None:
        """Who waits for its index hears of it, though nothing comes behind it."""
        self.build()
        response: Deferred[object] = Deferred()
        self.fsm.answers = {1: lambda: response}
        told: list[int] = []
        self.applier.advance(1)
        self.applier.call_when_applied(1, told.append)
        idle = self.applier.pause()

        response.callback(None)

        self.successResultOf(idle)
        self.assertEqual(told, [1])

    def test_resume_by_who_is_told_in_a_pause(self) -> None:
        """What is awaited then is not applied twice."""
        self.build()
        first: Deferred[object] = Deferred()
        second: Deferred[object] = Deferred()
        self.fsm.answers = {1: lambda: first, 2: lambda: second}
        self.applier.advance(3)
        self.applier.call_when_applied(1, lambda index: self.applier.resume())
        self.applier.pause()

        first.callback(None)
        self.assertEqual(self.fsm.applied, [1, 2])
        second.callback(None)

        self.assertEqual(self.fsm.applied, [1, 2, 3])

    def test_resume_after_a_restore_goes_on_behind_it(self) -> None:
        """Entries that the snapshot covers are not applied again."""
        self.build()
        told: list[int] = []
        self.applier.call_when_applied(6, told.append)
        self.applier.pause()
        self.applier.advance(8)

        self.applier.resume(7)

        self.assertEqual((self.fsm.applied, told), ([8], [7]))


class Reentry(ApplierCase):
    """Whoever is told that an index is applied may pause and resume at once."""

    def pause_and_resume(self, _index: int) -> None:
        self.applier.pause().addCallback(lambda _: self.applier.resume())

    def fetch(self, first: int, last: int) -> list[Entry] | Deferred[list[Entry]]:
        return super().fetch(first, first)

    def test_no_command_is_applied_twice(self) -> None:
        """The loop that tells goes on by itself; a second one would repeat a command
        whose response is awaited."""
        self.build(commands=3)
        response: Deferred[object] = Deferred()
        self.fsm.answers[2] = lambda: response
        self.applier.call_when_applied(1, self.pause_and_resume)

        self.applier.advance(3)

        self.assertEqual(self.fsm.applied, [1, 2])
        response.callback("two")
        self.assertEqual(self.fsm.applied, [1, 2, 3])
        self.assertEqual(self.settled, [(1, 1), (2, "two"), (3, 3)])

    def test_resume_by_who_is_told(self) -> None:
        """Without a pause it changes nothing."""
        self.build(commands=3)
        response: Deferred[object] = Deferred()
        self.fsm.answers[2] = lambda: response
        self.applier.call_when_applied(1, lambda index: self.applier.resume())

        self.applier.advance(3)

        self.assertEqual(self.fsm.applied, [1, 2])

    def test_after_a_response(self) -> None:
        """The same where a response was awaited before."""
        self.build(commands=3)
        first, second = Deferred[object](), Deferred[object]()
        self.fsm.answers = {1: lambda: first, 2: lambda: second}
        self.applier.call_when_applied(1, self.pause_and_resume)
        self.applier.advance(3)

        first.callback("one")

        self.assertEqual(self.fsm.applied, [1, 2])
        second.callback("two")
        self.assertEqual(self.settled, [(1, "one"), (2, "two"), (3, 3)])


class Waiting(ApplierCase):
    def test_call_when_applied_at_once_or_in_time(self) -> None:
        """The index given is the one reached, which may be a later one."""
        self.build()
        told: list[int] = []
        self.applier.call_when_applied(0, told.append)
        self.applier.call_when_applied(2, told.append)
        self.assertEqual(told, [0])

        self.applier.advance(1)
        self.assertEqual(told, [0])
        self.applier.advance(4)

        self.assertEqual(told, [0, 4])
