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

from txraft.client.attempts import ClientCalls
from txraft.client.errors import MalformedAnswer, Refused, TransactionFailed
from txraft.client.exchange import (
    NodeRequest,
    NodeResponse,
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
    """A client of the cluster whose nodes are at *urls*; one URL is enough to begin.

    *reactor* runs its connections and timers. *token*, if given, is sent with each
    request; *tls* holds the trusted authorities and the certificate for https URLs.
    With *exactly_once* writes are numbered: one whose answer was lost is sent again and
    still applied once. The cluster remembers the newest 64 numbers of each of some
    thousand clients. *http* replaces the client's own connections, in tests. A client
    keeps connections open: `close` it, or use it in `async with`.

    Every Deferred may be cancelled; a write that was cancelled may still be applied.
    Each fails with Unavailable when no node took the request and with Refused when the
    request is wrong; a write also fails with OutcomeUnknown when it may or may not have
    been applied. Only requests that are safe to repeat are sent twice.

    Thread: reactor.
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
        self.calls = ClientCalls(http, reactor, nodes, limits, headers, name)

    def close(self) -> Deferred[None]:
        """Close idle connections.

        Returns: a Deferred that fires when they are closed.
        """
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
        """Read *key*: the current value, or with *stale* a possibly older one.

        Returns: a Deferred of the record, or of None when there is no such key.
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

        With a *separator*, names end at the next one and are listed once, as in a
        directory.
        """

        async def read() -> list[str]:
            response = await self._read(
                _key(prefix), stale=stale, keys=True, separator=separator
            )
            return [] if _is_absent(response) else parse_keys(response.body)

        return Deferred.fromCoroutine(read())

    def watch(self, key: str) -> Watch[KeyValue | None]:
        """Watch *key*: `async for` over its states, None while it is absent."""
        return Watch(self.calls, _key(key), first_record)

    def watch_prefix(self, prefix: str) -> Watch[list[KeyValue]]:
        """Watch all keys that begin with *prefix*."""
        return Watch(self.calls, f"{_key(prefix)}?recurse=1", _tree)

    def leader(self) -> Deferred[str]:
        """Ask a node for the leader.

        Returns: a Deferred of the leader's peer address, "" if that node knows none.
        """

        async def read() -> str:
            target = "/v1/status/leader"
            request = NodeRequest("GET", target, repeatable=True)
            answer = parse_json((await self.calls.expect(request)).body)
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

        With *cas*, only if the key was last changed at that index; 0 means that it must
        be absent. With *acquire* or *release*, a session's id, only if that session
        gets the key's lock or gives it up.

        Returns: a Deferred of whether the key was written; without any of these
            conditions it is always True.
        """
        given = {"flags": flags or None, "cas": cas}
        target = _with(_key(key), **given, acquire=acquire, release=release)
        # A repeated acquire or release by the same session changes nothing more. With
        # cas it could fail at the change that the first attempt itself made.
        repeatable = (acquire is not None or release is not None) and cas is None
        request = NodeRequest("PUT", target, value, repeatable=repeatable)
        return Deferred.fromCoroutine(self._flag(request))

    def cas(self, key: str, value: bytes, index: int, flags: int = 0) -> Deferred[bool]:
        """Write *key* if it was last changed at *index*; 0 means: if it is absent.

        Returns: a Deferred of whether the key was written.
        """
        return self.put(key, value, flags=flags, cas=index)

    def delete(
        self, key: str, *, cas: int | None = None, recurse: bool = False
    ) -> Deferred[bool]:
        """Delete *key*; with *recurse*, all keys that begin with it.

        With *cas*, only if the key was last changed at that index.

        Returns: a Deferred of False if *cas* prevented it, else of True.
        """
        target = _with(_key(key), cas=cas, recurse=recurse)
        return Deferred.fromCoroutine(self._flag(NodeRequest("DELETE", target)))

    def txn(
        self, *operations: Operation, repeatable: bool = False
    ) -> Deferred[list[KeyValue]]:
        """Apply all *operations* in one step, or none of them.

        Set *repeatable* if it is harmless to apply them twice: they are then sent again
        when an answer was lost.
        Returns: a Deferred of the records that were read or written; that of a write
            has no value. It fails with TransactionFailed when one is refused.
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
        """Make a candidacy in an election for `async with`; see `Election`."""
        session = self.session(ttl, lock_delay=lock_delay, name=f"election {key}")
        return Election(self.calls, session, key, value)

    async def _read(self, target: str, **parameters: Any) -> NodeResponse:
        request = NodeRequest("GET", _with(target, **parameters), repeatable=True)
        return await self.calls.expect(request, 404)

    async def _flag(self, request: NodeRequest) -> bool:
        return parse_flag((await self.calls.expect(request)).body)

    async def _transact(
        self, operations: Sequence[Operation], repeatable: bool
    ) -> list[KeyValue]:
        body = json.dumps([operation.as_json() for operation in operations]).encode()
        repeatable = repeatable or all(operation.reads for operation in operations)
        request = NodeRequest("PUT", "/v1/txn", body, repeatable=repeatable)
        response = await self.calls.expect(request, 409)
        if response.status == 409:
            raise TransactionFailed(parse_refusals(response.body))
        return parse_results(response.body)


def _key(key: str) -> str:
    return f"/v1/kv/{quote(key, safe='/')}"


def _with(target: str, **parameters: Any) -> str:
    """Add the *parameters* that are set to *target*; True stands for a flag."""
    said = {
        name: 1 if value is True else value
        for name, value in parameters.items()
        if value is not None and value is not False and value != ""
    }
    return f"{target}?{urlencode(said)}" if said else target


def _is_absent(response: NodeResponse) -> bool:
    if response.status != 404:
        return False
    # A missing key is answered with an index. Without one, it is no node that answers
    # but, for example, a proxy: that must not read as an empty store.
    if response.header(INDEX) is None:
        raise Refused(404, response.sentence)
    return True


def _tree(response: NodeResponse) -> list[KeyValue]:
    return [] if _is_absent(response) else parse_records(response.body)
