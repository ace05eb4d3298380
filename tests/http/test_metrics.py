"""Metrics: names that dashboards know, and numbers that are true."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families

from tests.support.http_network import HTTPCase, ScriptedNode
from txraft.http.metrics import SECTIONS, Metrics, RequestCounts
from txraft.http.quotas import Quotas
from txraft.node.metrics import NodeMetrics, PeerMetrics, Timer
from txraft.storage.filelog import FileLog
from txraft.transport.validity import Validity
from txraft.version import VERSION

PATH = "/v1/agent/metrics?format=prometheus"
PEER = PeerMetrics(7, lag=3, in_flight=1, silence=0.25, undeliverable=8)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class MetricsCase(HTTPCase):
    """Reads what a node tells, as Prometheus does."""

    def samples(self, node: ScriptedNode) -> Samples:
        """Return each sample of *node* by its name and labels."""
        reply = self.reply(node, "GET", PATH)
        self.assertEqual(reply.status, 200)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(reply.body.decode())
            for sample in family.samples
        }

    def value(self, node: ScriptedNode, name: str, **labels: str) -> float:
        """Return one sample."""
        return self.samples(node)[name, tuple(sorted(labels.items()))]


class TheNode(MetricsCase):
    """What is told of consensus."""

    def test_indexes(self) -> None:
        """Indexes are those of the moment."""
        self.reply(self.n1, "PUT", "/v1/kv/a", b"1")

        self.assertEqual(self.value(self.n1, "raft_applied_index"), self.n1.index)
        self.assertEqual(self.value(self.n1, "kv_keys"), 1)

    def test_version(self) -> None:
        """A dashboard tells nodes of two releases apart."""
        self.assertEqual(self.value(self.n1, "txraft_build_info", version=VERSION), 1)

    def test_certificates(self) -> None:
        """When each certificate in force expires is told in Unix time."""
        end = datetime(2031, 5, 4, tzinfo=UTC)
        self.n1.validities = [Validity("http.tls.ca", "ca.pem", end)]
        name = "txraft_certificate_not_after_seconds"

        told = self.value(self.n1, name, setting="http.tls.ca")

        self.assertEqual(told, end.timestamp())
        self.n1.validities = []
        self.assertNotIn(name, {sample for sample, _ in self.samples(self.n1)})

    def test_elections(self) -> None:
        """Each change of role and of leader is counted."""
        before = self.value(self.n1, "raft_leader_changes")

        self.n1.follow("n2:8300")
        self.n1.lead()

        self.assertEqual(self.value(self.n1, "raft_leader_changes"), before + 2)
        self.assertEqual(self.value(self.n1, "raft_state_leader"), 2)
        self.assertEqual(self.value(self.n1, "raft_isLeader"), 1)
        self.assertEqual(self.value(self.n2, "raft_isLeader"), 0)

    def test_peers_are_labels(self) -> None:
        """One family has a sample for each follower."""
        self.n1.metrics = lambda: NodeMetrics(peers={"n2:8300": PEER})  # type: ignore[method-assign]

        lag = self.value(self.n1, "raft_replication_lag", peer_id="n2:8300")
        silence = self.value(self.n1, "raft_replication_lastContact", peer_id="n2:8300")

        name = "raft_replication_undeliverable_index"
        self.assertEqual((lag, silence), (3, 250))
        self.assertEqual(self.value(self.n1, name, peer_id="n2:8300"), 8)

    def test_times(self) -> None:
        """Times are histograms in milliseconds."""
        stores = Timer()
        for seconds in (0.0004, 0.0015, 9.0):
            stores.add(seconds)
        self.n1.metrics = lambda: NodeMetrics(stores=stores)  # type: ignore[method-assign]

        samples = self.samples(self.n1)

        name = "raft_wal_storeLogs"
        self.assertEqual(samples[f"{name}_bucket", (("le", "0.5"),)], 1)
        self.assertEqual(samples[f"{name}_bucket", (("le", "2.0"),)], 2)
        self.assertEqual(samples[f"{name}_bucket", (("le", "+Inf"),)], 3)
        self.assertEqual(samples[f"{name}_count", ()], 3)
        self.assertAlmostEqual(samples[f"{name}_sum", ()], 9001.9)


class TheTable(MetricsCase):
    """One table has all metrics."""

    rows = tuple(row for rows in SECTIONS.values() for row in rows)

    def test_names(self) -> None:
        """A name stands once, and its sentence is one."""
        names = Counter(row.name for row in self.rows)

        self.assertEqual([name for name, count in names.items() if count > 1], [])
        self.assertEqual([r.name for r in self.rows if not r.doc.endswith(".")], [])

    def test_whatever_a_node_counts(self) -> None:
        """Every field of a node's metrics changes what is told."""
        timer = Timer()
        timer.add(1)
        of_kind = {
            "int": 7,
            "float": 7.0,
            "float | None": 7.0,
            "Timer": timer,
            "Mapping[str, PeerMetrics]": {"n2:8300": PEER},
            "Mapping[str, float]": {"log_appends": 7.0},
        }
        nothing = self.told(NodeMetrics())

        silent = [
            field.name
            for field in fields(NodeMetrics)
            if self.told(NodeMetrics(**{field.name: of_kind[str(field.type)]}))
            == nothing
        ]

        self.assertEqual(silent, [])

    def test_whatever_a_leader_knows_of_a_peer(self) -> None:
        """Every field of a peer's metrics changes what is told."""
        known = self.told(NodeMetrics(peers={"n2:8300": PEER}))

        silent = [
            field.name
            for field in fields(PeerMetrics)
            if self.told(
                NodeMetrics(peers={"n2:8300": replace(PEER, **{field.name: 99})})
            )
            == known
        ]

        self.assertEqual(silent, [])

    def test_log_in_files(self) -> None:
        """Every count of the log in files has a row, with a sentence of its own."""
        log = FileLog(self.mktemp(), "n1:8300")
        self.addCleanup(log.close)

        counted = {f"raft_wal_{name}" for name in log.metrics()}

        self.assertEqual(counted - {row.name for row in self.rows}, set())

    def test_other_log_stores(self) -> None:
        """What only an application's own log store counts is told under its name."""
        node = NodeMetrics(log={"compactions": 3})

        self.assertIn(("raft_wal_compactions", (), 3), self.told(node))

    def told(self, node: NodeMetrics) -> set[tuple[str, tuple[str, ...], float]]:
        """Return the samples of a node that counted *node*."""
        self.n1.metrics = lambda: node  # type: ignore[method-assign]
        quotas = Quotas(self.n1.fsm, self.limits)
        metrics = Metrics(self.n1, quotas, RequestCounts())
        return {
            (sample.name, tuple(sorted(sample.labels.values())), sample.value)
            for family in metrics.collect()
            for sample in family.samples
        }


class TheAPI(MetricsCase):
    """What is told of HTTP."""

    def test_requests(self) -> None:
        """Requests count by method, path and status; keys are no label."""
        self.reply(self.n1, "PUT", "/v1/kv/a/b", b"1")
        self.reply(self.n1, "GET", "/v1/kv/a/b")
        self.reply(self.n1, "GET", "/v1/kv/nothing")

        counted = {
            labels: value
            for (name, labels), value in self.samples(self.n1).items()
            if name == "api_http_requests"
        }
        key = ("path", "/v1/kv/")
        self.assertEqual(
            counted,
            {
                (("method", "PUT"), key, ("status", "200")): 1,
                (("method", "GET"), key, ("status", "200")): 1,
                (("method", "GET"), key, ("status", "404")): 1,
            },
        )

    def test_paths_of_strangers(self) -> None:
        """A path that is not served makes no sample: nobody can fill the memory."""
        self.reply(self.n1, "GET", "/v1/a")
        self.reply(
            self.n1, "GET", "/v1/session/info/00000000-0000-0000-0000-000000000000"
        )

        paths = {dict(labels).get("path") for _, labels in self.samples(self.n1)}

        self.assertEqual(paths - {None}, {"/v1/session/info/"})

    def test_other_formats(self) -> None:
        """There is JSON, which has no name, and that of Prometheus."""
        self.assertEqual(
            self.reply(self.n1, "GET", "/v1/agent/metrics?format=x").status, 400
        )

    def test_time(self) -> None:
        """A request's time is that from its whole arrival to its answer."""
        served = RequestCounts()
        served.add(b"GET", b"/x", 200, 0.003)
        quotas = Quotas(self.n1.fsm, self.limits)
        metrics = Metrics(self.n1, quotas, served)

        family = next(f for f in metrics.collect() if f.name == "api_http")

        self.assertEqual(
            [s.value for s in family.samples if s.name.endswith("_sum")], [3]
        )
