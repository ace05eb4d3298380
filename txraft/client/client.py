"""`Client`: the key-value store from a Twisted application.

    client = Client(["http://10.0.0.1:8500", "http://10.0.0.2:8500"], reactor)
    await client.put("greeting", b"hello")

Source: Consul's HTTP API, whose dialect the nodes speak.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, succeed
from twisted.web.client import HTTPConnectionPool

from txraft.client.attempts import Calls
from txraft.client.errors import MalformedAnswer, Refused, TransactionFailed
from txraft.client.exchange import (
    Question,
    Reply,
    connection_pool,
    pooled_client,
)
from txraft.client.limits import ClientLimits
from txraft.client.lock import Election, Lock, first_record
from txraft.client.nodes import Nodes
from txraft.client.results import (
    KeyValue,
    Operation,
    parse_flag,
    parse_json,
    parse_keys,
    parse_records,
    parse_refusals,
    parse_results,
)
from txraft.client.session import Session
from txraft.client.tls import ClientTLS
from txraft.client.watch import INDEX, Watch

DEFAULT_TTL = 15.0
DEFAULT_LOCK_DELAY = 15.0
IDLE_SECONDS = 20


class Client:
    """Asks the nodes at *urls*, one of which is enough to begin with.

    *reactor* is what it lives on. *token*, if given, is sent with each request, *tls*
    says whom to trust and what to show at https addresses. With
    *exactly_once* its writes are numbered, so that one whose answer was lost is sent
    again and done once; the cluster remembers the newest 64 of each of some thousand
    clients. *http* takes the place of connections of its own, in tests. A client
    keeps connections open: `close` it, or use it in `async with`.

    Every Deferred may be cancelled; a write that was cancelled may still be applied.
    Each fails with Unavailable when no node took the request, with Refused when the
    request is wrong, and a write with OutcomeUnknown when nobody can tell what became
    of it. Only what does no harm twice is asked twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        reactor: Any,
        *,
        token: str | None = None,
        tls: ClientTLS | None = None,
        limits: ClientLimits | None = None,
        exactly_once: bool = False,
        http: HTTPClient | None = None,
    ) -> None:
        limits = limits or ClientLimits()
        self._pool: HTTPConnectionPool | None = None
        if http is None:
            self._pool = connection_pool(
                reactor, limits.max_idle_connections, IDLE_SECONDS
            )
            http = pooled_client(reactor, self._pool, limits.connect_timeout, tls)
        nodes = Nodes(urls, reactor, limits.shun_time)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        name = str(uuid4()) if exactly_once else None
        self.calls = Calls(http, reactor, nodes, limits, headers, name)

    def close(self) -> Deferred[None]:
        """Close idle connections. Returns: a Deferred that fires when they are."""
        pool, self._pool = self._pool, None
        return succeed(None) if pool is None else pool.closeCachedConnections()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Reads

    def get(self, key: str, *, stale: bool = False) -> Deferred[KeyValue | None]:
        """Read *key*: as it is now, or with *stale* as some node has it.

        Returns: a Deferred of it, or of None when there is no such key.
        """

        async def get() -> KeyValue | None:
            return first_record(await self._read(_key(key), stale=stale))

        return Deferred.fromCoroutine(get())

    def tree(
        self, prefix: str = "", *, stale: bool = False
    ) -> Deferred[list[KeyValue]]:
        """Read every key that begins with *prefix*."""

        async def read() -> list[KeyValue]:
            return _tree(await self._read(_key(prefix), stale=stale, recurse=True))

        return Deferred.fromCoroutine(read())

    def keys(
        self, prefix: str = "", separator: str = "", *, stale: bool = False
    ) -> Deferred[list[str]]:
        """List the names of the keys that begin with *prefix*.

        With a *separator* only up to the next one, each once: like one directory.
        """

        async def read() -> list[str]:
            reply = await self._read(
                _key(prefix), stale=stale, keys=True, separator=separator
            )
            return [] if _is_absent(reply) else parse_keys(reply.body)

        return Deferred.fromCoroutine(read())

    def watch(self, key: str) -> Watch[KeyValue | None]:
        """Watch *key*: `async for` over its states, None while it is absent."""
        return Watch(self.calls, _key(key), first_record)

    def watch_prefix(self, prefix: str) -> Watch[list[KeyValue]]:
        """Watch all keys that begin with *prefix*."""
        return Watch(self.calls, f"{_key(prefix)}?recurse=1", _tree)

    def leader(self) -> Deferred[str]:
        """Ask some node who leads.

        Returns: a Deferred of the leader's peer address, "" when it knows of none.
        """

        async def read() -> str:
            target = "/v1/status/leader"
            question = Question("GET", target, repeatable=True)
            answer = parse_json((await self.calls.expect(question)).body)
            if not isinstance(answer, str):
                raise MalformedAnswer("an answer names no leader")
            return answer

        return Deferred.fromCoroutine(read())

    # Writes

    def put(
        self,
        key: str,
        value: bytes,
        *,
        flags: int = 0,
        cas: int | None = None,
        acquire: str | None = None,
        release: str | None = None,
    ) -> Deferred[bool]:
        """Write *key*.

        With *cas* only if it was last changed at that index, 0: if it is absent. With
        *acquire* or *release*, a session's id, only if that gets or gives its lock.

        Returns: a Deferred that tells whether it was written; always True without
            any of these.
        """
        given = {"flags": flags or None, "cas": cas}
        target = _with(_key(key), **given, acquire=acquire, release=release)
        # A session that has a lock gets it again, and gives it only once.
        repeatable = (acquire is not None or release is not None) and cas is None
        question = Question("PUT", target, value, repeatable=repeatable)
        return Deferred.fromCoroutine(self._flag(question))

    def cas(self, key: str, value: bytes, index: int, flags: int = 0) -> Deferred[bool]:
        """Write *key* if it was last changed at *index*, 0: if it is absent.

        Returns: a Deferred that tells whether it was.
        """
        return self.put(key, value, flags=flags, cas=index)

    def delete(
        self, key: str, *, cas: int | None = None, recurse: bool = False
    ) -> Deferred[bool]:
        """Delete *key*; with *recurse*, all keys that begin with it.

        With *cas* only if it was last changed at that index.

        Returns: a Deferred of True, unless *cas* was in the way.
        """
        target = _with(_key(key), cas=cas, recurse=recurse)
        return Deferred.fromCoroutine(self._flag(Question("DELETE", target)))

    def txn(
        self, *operations: Operation, repeatable: bool = False
    ) -> Deferred[list[KeyValue]]:
        """Do all *operations* at once, or none.

        Those that do no harm when they are done twice are *repeatable*: they are sent
        again when an answer was lost.
        Returns: a Deferred of what they read and wrote; a write's record has no
            value. It fails with TransactionFailed when one of them is refused.
        """
        return Deferred.fromCoroutine(self._transact(operations, repeatable))

    # Locks

    def session(
        self,
        ttl: float = DEFAULT_TTL,
        *,
        behavior: str = "release",
        lock_delay: float = DEFAULT_LOCK_DELAY,
        name: str = "",
    ) -> Session:
        """Make a session for `async with`; see `Session`."""
        return Session(self.calls, ttl, behavior, lock_delay, name)

    def lock(
        self,
        key: str,
        value: bytes = b"",
        *,
        ttl: float = DEFAULT_TTL,
        lock_delay: float = DEFAULT_LOCK_DELAY,
    ) -> Lock:
        """Make a lock on *key* for `async with`; see `Lock`."""
        session = self.session(ttl, lock_delay=lock_delay, name=f"lock {key}")
        return Lock(self.calls, session, key, value)

    def election(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float = DEFAULT_TTL,
        lock_delay: float = DEFAULT_LOCK_DELAY,
    ) -> Election:
        """Make a candidacy for `async with`; see `Election`."""
        session = self.session(ttl, lock_delay=lock_delay, name=f"election {key}")
        return Election(self.calls, session, key, value)

    async def _read(self, target: str, **parameters: Any) -> Reply:
        question = Question("GET", _with(target, **parameters), repeatable=True)
        return await self.calls.expect(question, 404)

    async def _flag(self, question: Question) -> bool:
        return parse_flag((await self.calls.expect(question)).body)

    async def _transact(
        self, operations: Sequence[Operation], repeatable: bool
    ) -> list[KeyValue]:
        body = json.dumps([operation.as_json() for operation in operations]).encode()
        repeatable = repeatable or all(operation.reads for operation in operations)
        question = Question("PUT", "/v1/txn", body, repeatable=repeatable)
        reply = await self.calls.expect(question, 409)
        if reply.status == 409:
            raise TransactionFailed(parse_refusals(reply.body))
        return parse_results(reply.body)


def _key(key: str) -> str:
    return f"/v1/kv/{quote(key, safe='/')}"


def _with(target: str, **parameters: Any) -> str:
    """Add those *parameters* that say something; True stands for a flag."""
    said = {
        name: 1 if value is True else value
        for name, value in parameters.items()
        if value is not None and value is not False and value != ""
    }
    return f"{target}?{urlencode(said)}" if said else target


def _is_absent(reply: Reply) -> bool:
    if reply.status != 404:
        return False
    if reply.header(INDEX) is None:
        raise Refused(404, reply.sentence)
    return True


def _tree(reply: Reply) -> list[KeyValue]:
    return [] if _is_absent(reply) else parse_records(reply.body)
