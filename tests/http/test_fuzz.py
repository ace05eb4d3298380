"""Any request is answered in time, and by no failure of ours."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.http_network import HTTPCase

METHODS = st.sampled_from(["GET", "PUT", "DELETE", "POST", "PATCH"])
PATHS = st.sampled_from(
    [
        "/v1/kv/",
        "/v1/kv/a",
        "/v1/kv/a/b",
        "/v1/kv/%C3%A9",
        "/v1/kv/%FF",
        "/v1/kv/%zz",
        "/v1/txn",
        "/v1/session/create",
        "/v1/session/destroy/s",
        "/v1/session/renew/s",
        "/v1/session/info/s",
        "/v1/session/node/%00",
        "/v1/session/list",
        "/v1/session/info/",
        "/v1/status/leader",
        "/v1/status/peers",
        "/v1/operator/raft/configuration",
        "/v1/operator/raft/peer",
        "/v1/operator/raft/transfer-leader",
        "/v1/operator/raft/advertise",
        "/v1/operator/autopilot/health",
        "/v1/agent/self",
        "/v1/catalog/register",
        "/v1/catalog/nodes",
        "/v1/health/state/any",
        "/v1/health/service/web",
        "/v1/snapshot",
        "/readyz",
        "/livez",
        "/v1/",
        "//",
    ]
)
NAMES = st.sampled_from(
    [
        "recurse",
        "keys",
        "separator",
        "raw",
        "stale",
        "consistent",
        "index",
        "wait",
        "flags",
        "cas",
        "acquire",
        "release",
        "dc",
        "address",
        "id",
        "url",
        "pretty",
        "other",
    ]
)
VALUES = st.sampled_from(
    ["", "0", "1", "2", "99999999999999999999999", "-1", "x", "1s", "dc1", "a:1", "%FF"]
)
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2**65)
    | st.floats(allow_nan=True)
    | st.text(max_size=5)
    | st.sampled_from(
        ["set", "cas", "lock", "get-tree", "delete", "10s", "dg==", "\ud800"]
    )
)
FIELDS = st.sampled_from(
    [
        "KV",
        "Verb",
        "Key",
        "Value",
        "Flags",
        "Index",
        "Session",
        "TTL",
        "LockDelay",
        "Behavior",
        "Name",
        "Node",
        "Checks",
        "Address",
        "Service",
    ]
)
JSONS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5)
    ),
    max_leaves=12,
)
OPERATIONS = st.fixed_dictionaries(
    {"Verb": st.sampled_from(["set", "cas", "lock", "unlock", "get", "get-tree"])},
    optional={
        "Key": SCALARS,
        "Value": SCALARS,
        "Flags": SCALARS,
        "Index": SCALARS,
        "Session": SCALARS,
    },
)
TRANSACTIONS = st.lists(st.fixed_dictionaries({"KV": OPERATIONS}), max_size=3)
BODIES = st.binary(max_size=30) | (JSONS | TRANSACTIONS).map(
    lambda value: json.dumps(value).encode()
)
ONCE = {"X-Txraft-Client": "c", "X-Txraft-Sequence": "1"}
HEADERS = st.just(ONCE) | st.dictionaries(
    st.sampled_from(["X-Txraft-Client", "X-Txraft-Sequence", "X-Consul-Token"]),
    st.sampled_from(["c", "1", "2", "0", "é".encode().decode("latin-1"), ""]),
    max_size=2,
)
REQUESTS = st.lists(
    st.tuples(METHODS, PATHS, QUERIES, BODIES, HEADERS, st.booleans()),
    min_size=1,
    max_size=6,
)


class Fuzz(HTTPCase):
    """Requests that hold all the words of the API, in no order that makes sense."""

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @example([("PUT", "/v1/kv/a", "acquire=", b"", {}, False)])
    @given(REQUESTS)
    def test_any_requests(
        self, requests: list[tuple[str, str, str, bytes, dict[str, str], bool]]
    ) -> None:
        """Each gets an answer that is no fault of ours, and the node serves on."""
        self.setUp()
        for method, path, query, body, headers, forwarded in requests:
            asked = self.ask(
                self.n2 if forwarded else self.n1,
                method,
                f"{path}?{query}" if query else path,
                None if method in ("GET", "DELETE") else body,
                headers,
            )
            while self.worker.perform():
                self.network.flush()
            self.advance(1)
            self.advance(700)
            reply = self.successResultOf(asked)
            # Consul answers some mistakes with 500, and requests without a leader: the
            # outcome of these is known.
            known = reply.outcome in ("refused", "not-applied")
            failed = reply.body.startswith(b"The node failed to serve this")
            is_fault = reply.status == 500 and (failed or not known)
            self.assertFalse(is_fault, (method, path, query, reply.body))
        self.n1.lead()
        alive = self.reply(self.n1, "PUT", "/v1/kv/alive", b"")
        self.assertEqual(alive.body, b"true")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.doCleanups()
