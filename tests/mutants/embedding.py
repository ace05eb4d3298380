"""Planted bugs in the order in which a whole node starts, stops and is waited for."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="a node closes before its leadership is transferred",
        at="Node._stop",
        old="await self._member.leave()\nawait self._close()",
        new="await self._close()\nawait self._member.leave()",
        caught_by="tests.embedding.test_node.Stops.test_stop_transfers_leadership_first",
    ),
    Mutant(
        name="a member's stores are closed before its Raft has stopped",
        at="Member.close",
        old="await self._stop()",
        new="self._stores is None or self._stores.close()\nawait self._stop()",
        caught_by="tests.embedding.test_node.Stops.test_stop_closes_in_order",
    ),
    Mutant(
        name="a member's directory is unlocked before its stores are closed",
        at="Member.close",
        old="self._is_closing = True",
        new="self._is_closing = True\nself._host.unlock()",
        caught_by="tests.embedding.test_node.Stops.test_stop_closes_in_order",
    ),
    Mutant(
        name="stores that do not close leave the directory locked",
        at="Member.close",
        old="try:\n    ...\nfinally:\n    self._host.unlock()",
        new="self._stores is None or self._stores.close()\nself._host.unlock()",
        caught_by="tests.embedding.test_node.Stops.test_stop_that_fails_unlocks",
    ),
    Mutant(
        name="a start that fails half-way leaves open what it has opened",
        at="Node._start",
        old="await _uninterrupted(Deferred.fromCoroutine(self._close()))",
        new="pass",
        caught_by="tests.embedding.test_node.Starts.test_start_that_fails_at_the_port_closes",
    ),
    Mutant(
        name="a start that fails without a Raft leaves the transport open",
        at="Member._stop",
        old="self._transport is not None",
        new="False",
        caught_by="tests.embedding.test_node.Starts.test_start_that_fails_at_the_stores_closes",
    ),
    Mutant(
        name="the files are opened before the directory is locked",
        at="Member.open",
        old="host.lock()",
        new="host.stores()\nhost.lock()",
        caught_by="tests.embedding.test_node.Starts.test_start_opens_in_order",
    ),
    Mutant(
        name="a stop does not wait for the start that it has cancelled",
        at="Node._stop",
        old="await self._has_begun.when()",
        new="pass",
        caught_by="tests.embedding.test_node.Stops.test_stop_while_it_starts_and_does_not_heed",
    ),
    Mutant(
        name="whoever is cancelled at the end of an async with does not wait for the files",
        at="Node.__aexit__",
        old="_uninterrupted(self.stop())",
        new="self.stop()",
        caught_by="tests.embedding.test_node.Stops.test_async_with_that_is_cancelled_waits_for_the_end",
    ),
    Mutant(
        name="a failure that one has awaited is a success for the next",
        at="_Wait._fired",
        old="outcome._failed = result",
        new="pass",
        caught_by="tests.embedding.test_outcome.InTwisted.test_await_twice_raises_the_same",
    ),
    Mutant(
        name="a task of asyncio that is cancelled leaves its command to be appended",
        at="_Wait.cancel",
        old="self._outcome.cancel()",
        new="pass",
        caught_by="tests.embedding.test_outcome.InTwisted.test_cancel_of_a_coroutine_cancels_what_it_waits_for",
    ),
    Mutant(
        name="the end of the last node in a loop of asyncio stops the loop",
        at="EmbeddedReactor.crash",
        old="ReactorBase.crash(self)",
        new="AsyncioSelectorReactor.crash(self)",
        caught_by="tests.embedding.test_reactors.Borrowing.test_give_back_cancels_what_was_to_come",
    ),
    Mutant(
        name="the first node out ends the reactor of the others in its loop",
        at="_give_back",
        old="shared.borrowers -= 1",
        new="shared.borrowers = 0",
        caught_by="tests.embedding.test_reactors.Borrowing.test_one_reactor_for_a_loop",
    ),
    Mutant(
        name="a node in a loop of asyncio leaves its reactor's pipes open",
        at="EmbeddedReactor.close",
        old="leave_loop(self)",
        new="None",
        caught_by="tests.embedding.test_reactors.Borrowing.test_give_back_closes_its_pipes",
    ),
    Mutant(
        name="the ticker of a node installs the global reactor",
        at="Ticker.__init__",
        old="self.f, self.a, self.kw = call, (), {}",
        new="LoopingCall.__init__(self, call)",
        caught_by="tests.test_clock.Tickers.test_ticker_installs_no_reactor",
    ),
    Mutant(
        name="a signal stops the reactor before main has ended",
        at="_Run._stop",
        old="self._work.cancel()\nreturn ended",
        new="self._work.cancel()",
        caught_by="tests.embedding.test_run.Runs.test_run_ends_in_order_at_a_signal",
    ),
    Mutant(
        name="a command that could not be appended during a transfer is not tried again",
        at="Node._try_again",
        old="failure.check(NotLeader, TransferInProgress)",
        new="False",
        caught_by="tests.embedding.test_node.Commands.test_apply_while_leadership_is_transferred",
    ),
    Mutant(
        name="a failed node ends as one that was shut down",
        at="_told_apart",
        old="reason is None or isinstance(reason, NodeRemoved)",
        new="True",
        caught_by="tests.embedding.test_node.Ends.test_when_stopped_after_a_failure",
    ),
)
