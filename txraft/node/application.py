"""Calls into the application's code: all that a node makes go through here.

What such a call may return is decided in this one place, and the manual has the table
of it (docs/reference/callbacks.rst):

1. Where the reactor waits for an outcome, anything that can be awaited will do: a
   Deferred, a coroutine, a Future of asyncio.
2. Elsewhere it is refused, and a coroutine closed: it has done nothing yet, and what
   has not run must never count as done.
3. A generator is refused everywhere; somebody forgot `inlineCallbacks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from inspect import isasyncgen, iscoroutine, iscoroutinefunction, isgenerator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.errors import ContractBroken, RaftError
from txraft.interfaces import FSM, FSMSnapshot, SnapshotSink

log = Logger()

ON_A_THREAD = (
    "it runs on a thread, where nothing awaits it; do the work before it returns"
)
AT_ONCE = "its result is needed at once, and nothing awaits it"


FINISHED: set[type] = {type(None)}
"""Types that no unfinished work has, as far as they were met; for speed.

The look-up costs a tenth of what it saves. It stays small, as types may be made at
any rate.
"""

MOST_TYPES = 256
"""How many types are remembered as FINISHED."""


def is_unfinished(result: object) -> bool:
    """Tell whether *result* stands for work that has not ended, or not even begun."""
    kind = type(result)
    if kind in FINISHED:
        return False
    if issubclass(kind, (Awaitable, GeneratorType, AsyncGeneratorType)):
        return True
    if len(FINISHED) < MOST_TYPES:
        FINISHED.add(kind)
    return False


def awaited(result: object, what: str) -> Deferred[Any]:
    """Return a Deferred of the outcome of the unfinished *result* of *what*.

    Raises: ContractBroken, for a generator.
    """
    if isinstance(result, Deferred):
        return result
    if iscoroutine(result):
        return Deferred.fromCoroutine(result)
    if asyncio.isfuture(result):
        return Deferred.fromFuture(result)
    if isinstance(result, Awaitable):
        return Deferred.fromCoroutine(_outcome(result))
    _close(result)
    raise ContractBroken(
        f"{what} returned {_kind(result)}, so nothing of it has run: it lacks "
        "`inlineCallbacks`, or has a `yield` too many"
    )


async def _outcome(result: Awaitable[Any]) -> Any:
    return await result


def last_awaited(
    responses: Sequence[object], commands: int, what: str
) -> Deferred[Any] | None:
    """Return the outcome of the last one of *responses*, if it is unfinished.

    Raises: ContractBroken, if *what* returned no sequence, if another one than the last
        is unfinished, or if there are not as many as *commands* otherwise.
    """
    if not isinstance(responses, Sequence):
        raise ContractBroken(f"{what} returned {_kind(responses)}, not a sequence")
    if FINISHED.issuperset(map(type, responses)) and len(responses) == commands:
        return None
    *others, last = responses or (None,)
    if any(map(is_unfinished, others)):
        _close_all(responses)
        raise ContractBroken(
            f"{what} returned a response that is unfinished among others; only the "
            "last one may be: return early, and the rest is given again"
        )
    if is_unfinished(last) and len(responses) <= commands:
        return awaited(last, what)
    if len(responses) != commands:
        _close_all(responses)
        raise ContractBroken(
            f"{what} returned {len(responses)} responses to {commands} commands"
        )
    return None


def all_finished(result: object, commands: int, what: str) -> Sequence[object]:
    """Return the responses that *what* was awaited for.

    Raises: ContractBroken, as `last_awaited`, and if any is unfinished.
    """
    if not isinstance(result, Sequence):
        raise ContractBroken(f"{what} gave {_kind(result)}, not a sequence")
    if any(map(is_unfinished, result)):
        _close_all(result)
        raise ContractBroken(f"{what} was awaited, and gave what is unfinished again")
    last_awaited(result, commands, what)
    return result


def refuse_unfinished(result: object, what: str, why: str) -> None:
    """Refuse the *result* of *what* if it is unfinished, because of *why*.

    Raises: ContractBroken
    """
    if result is not None and is_unfinished(result):
        _close(result)
        raise ContractBroken(f"{what} returned {_kind(result)}: {why}")


def check_methods(
    thing: object, plug_point: type, asynchronous: Collection[str] = ()
) -> None:
    """Refuse *thing* if it is no *plug_point*, or if it answers too late for one.

    Only *asynchronous* methods may be coroutine functions.

    Raises: ContractBroken, which names the method.
    """
    name, wanted = _name(thing), plug_point.__name__
    if isinstance(thing, type):
        raise ContractBroken(f"{thing.__name__} is a class: hand in an object of it")
    for method, declared in vars(plug_point).items():
        if method.startswith("_") or not callable(declared):
            continue
        found = getattr(thing, method, None)
        if not callable(found):
            raise ContractBroken(f"{name} lacks the method `{method}` of {wanted}")
        if method not in asynchronous and iscoroutinefunction(found):
            raise ContractBroken(
                f"{name}.{method} is a coroutine function, but {wanted}.{method} must "
                "have done its work when it returns"
            )


def answer_of(call: Callable[..., object], *arguments: object) -> Deferred[Any]:
    """Make a *call* of a transport, and return a Deferred of its answer.

    It never raises: the Deferred fails instead, with ContractBroken if there is nothing
    to wait for.
    """
    try:
        result = call(*arguments)
        if isinstance(result, Deferred):
            return result
        what = _named_call(call)
        if is_unfinished(result):
            return awaited(result, what)
        raise ContractBroken(f"{what} returned {_kind(result)}, not a Deferred")
    except BaseException:
        return fail()


def done(call: Callable[..., object], *arguments: object) -> None:
    """Make a *call* of a store, which has done its work when it returns.

    Raises: ContractBroken, when it would go on after that; whatever the store raises.
    Thread: that of the store.
    """
    result = call(*arguments)
    if result is not None:
        refuse_unfinished(result, _named_call(call), ON_A_THREAD)


def capture(fsm: FSM) -> FSMSnapshot:
    """Have *fsm* capture its state.

    Raises: ContractBroken, when what comes back cannot be persisted and released;
        whatever `snapshot` raises.
    Thread: reactor.
    """
    what = f"{_name(fsm)}.snapshot"
    captured = fsm.snapshot()
    refuse_unfinished(captured, what, AT_ONCE)
    for method in ("persist", "release"):
        if not callable(getattr(captured, method, None)):
            raise ContractBroken(
                f"{what} returned {captured!r}, which has no method `{method}`: it "
                "must be an FSMSnapshot"
            )
    return captured


def persist(captured: FSMSnapshot, sink: SnapshotSink) -> None:
    """Have *captured* write itself to *sink*.

    Raises: ContractBroken, when it would go on after it has returned; whatever
        `persist` raises.
    Thread: snapshot.
    """
    result: object = captured.persist(sink)  # type: ignore[func-returns-value]
    refuse_unfinished(result, f"{_name(captured)}.persist", ON_A_THREAD)


def release(captured: FSMSnapshot) -> None:
    """Let go of *captured*. What that raises is logged: the snapshot stands.

    Thread: reactor.
    """
    what = f"{_name(captured)}.release"
    try:
        result: object = captured.release()  # type: ignore[func-returns-value]
        refuse_unfinished(result, what, AT_ONCE)
    except Exception:
        log.failure("{what} failed; this changes nothing for the snapshot", what=what)


def restore(fsm: FSM, source: BinaryIO) -> None:
    """Have *fsm* replace its state by *source*.

    Raises: ContractBroken, when it would go on after it has returned; whatever
        `restore` raises.
    Thread: snapshot.
    """
    result: object = fsm.restore(source)  # type: ignore[func-returns-value]
    refuse_unfinished(result, f"{_name(fsm)}.restore", ON_A_THREAD)


def reason_of(failure: Failure) -> str:
    """Say what failed; by its name too, where its words alone may be a mere number."""
    value, text = failure.value, failure.getErrorMessage()
    if isinstance(value, (RaftError, OSError)):
        return text
    return f"{_name(value)}: {text}" if text else _name(value)


def _close_all(results: Iterable[object]) -> None:
    for result in results:
        _close(result)


def _close(result: object) -> None:
    """End what will never be run, so that Python does not warn of it."""
    if iscoroutine(result) or isgenerator(result):
        result.close()


def _named_call(call: Callable[..., object]) -> str:
    owner, name = getattr(call, "__self__", None), getattr(call, "__name__", "")
    return f"{_name(owner)}.{name}" if owner is not None else name or _name(call)


def _name(thing: object) -> str:
    return type(thing).__name__


def _kind(result: object) -> str:
    for is_of, kind in (
        (iscoroutine, "a coroutine"),
        (isgenerator, "a generator"),
        (isasyncgen, "an asynchronous generator"),
    ):
        if is_of(result):
            return kind
    return f"a {_name(result)}"
