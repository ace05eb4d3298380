"""Metrics for Prometheus: `GET /v1/agent/metrics?format=prometheus`.

Where hashicorp/raft has a metric, its name is used, as its Prometheus sink writes it
(`raft.commitTime` is `raft_commitTime`). Times are milliseconds, as there. All values
are read when they are asked for. Only rare events and requests are counted as they
happen, so that metrics cost nothing on the path of an entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from time import gmtime, strftime

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UntypedMetricFamily,
)

from txraft.http.answers import Answer, HTTPRefusal, json_answer
from txraft.http.backend import RaftNode
from txraft.http.inflight import HTTPCall
from txraft.http.quotas import Quotas
from txraft.kv.state import KeyValueFSM
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState
from txraft.node.metrics import BOUNDS, NodeMetrics, Timer
from txraft.transport.validity import Validities, Validity, no_certificates
from txraft.version import VERSION

PATH = b"/v1/agent/metrics"
PARAMETERS = frozenset({"format"})
_PROMETHEUS = (b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")
_PEER = ("peer_id",)
_BUILD = GaugeMetricFamily(
    "txraft_build_info", "1, with the version of txraft that runs.", labels=("version",)
)
_BUILD.add_metric([VERSION], 1)
_STATES = {
    RaftState.LEADER: "leader",
    RaftState.CANDIDATE: "candidate",
    RaftState.FOLLOWER: "follower",
}


class RequestCounts:
    """Counts requests by method, path and status, and times them."""

    def __init__(self) -> None:
        self.counts: dict[tuple[bytes, bytes, int], int] = {}
        self.times: dict[tuple[bytes, bytes], Timer] = {}

    def add(self, method: bytes, path: bytes, status: int, seconds: float) -> None:
        """Count a request to *path*, which is one of the table of routes."""
        # Never the path as it was sent: each key would make a metric of its own.
        counted = (method, path, status)
        self.counts[counted] = self.counts.get(counted, 0) + 1
        timer = self.times.get((method, path))
        if timer is None:
            timer = self.times[method, path] = Timer()
        timer.add(seconds)


class Metrics:
    """The metrics of the node *raft*, of its keys and of its HTTP requests *served*."""

    def __init__(
        self,
        raft: RaftNode,
        fsm: KeyValueFSM,
        quotas: Quotas,
        served: RequestCounts,
        validities: Validities = no_certificates,
    ) -> None:
        self._validities = validities
        self._raft = raft
        self._fsm = fsm
        self._quotas = quotas
        self.served = served
        self._states = dict.fromkeys(_STATES.values(), 0)
        self._leader_changes = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._observer = Observer(self._observed)
        raft.register_observer(self._observer)

    def close(self) -> None:
        """Stop counting changes of the node; idempotent."""
        self._raft.deregister_observer(self._observer)

    def get(self, call: HTTPCall) -> Answer:
        """Answer with all metrics, as JSON or in the text format of Prometheus."""
        wanted = call.parameters.get("format")
        if wanted is None:
            return json_answer(_as_json(self.collect()))
        if wanted != "prometheus":
            raise HTTPRefusal(400, "The only format is 'prometheus'.")
        return Answer(200, generate_latest(self._registry), _PROMETHEUS)

    def collect(self) -> Iterable[Metric]:
        """Make all metrics from the present values."""
        figures = self._raft.metrics()
        yield _BUILD
        yield from _raft(figures)
        yield from _log(figures)
        yield from _peers(figures)
        for state, count in self._states.items():
            doc = f"How often this node became {state}."
            yield _count(f"raft_state_{state}", doc, count)
        yield _count(
            "raft_leader_changes",
            "How often this node learned of another leader, or of none.",
            self._leader_changes,
        )
        yield _gauge("raft_isLeader", "Whether this node leads.", self._leads)
        yield from _certificates(self._validities())
        yield from _quotas(self._quotas)
        yield from _http(self.served)

    @property
    def _leads(self) -> int:
        return int(self._raft.state is RaftState.LEADER)

    def _observed(self, observation: Observation) -> None:
        if isinstance(observation.data, LeaderObservation):
            self._leader_changes += 1
        elif isinstance(observation.data, RaftState):
            state = _STATES.get(observation.data)
            if state is not None:
                self._states[state] += 1


def _raft(figures: NodeMetrics) -> Iterator[Metric]:
    yield _gauge("raft_term", "The current term.", figures.term)
    yield _gauge("raft_last_index", "Index of the newest entry.", figures.last_index)
    yield _gauge("raft_first_index", "Index of the oldest entry.", figures.first_index)
    yield _gauge("raft_commit_index", "Committed up to here.", figures.commit_index)
    yield _gauge("raft_applied_index", "Applied up to here.", figures.applied_index)
    yield _gauge("raft_fsm_pending", "Entries to be applied.", figures.apply_backlog)
    yield _gauge(
        "raft_fsm_stuck",
        "Seconds for which the state machine has hung, 0 if it does not.",
        figures.stuck_seconds,
    )
    yield _gauge(
        "raft_pending_entries", "Proposals without outcome.", figures.pending_entries
    )
    yield _gauge("raft_pending_bytes", "Their bytes.", figures.pending_bytes)
    yield _count("raft_apply", "Proposals appended here.", figures.appended)
    yield _times(
        "raft_commitTime",
        "Milliseconds from append to outcome, of one proposal at a time.",
        figures.commits,
    )
    if figures.silence is not None:
        yield _gauge(
            "raft_leader_lastContact",
            "Milliseconds since the leader was heard; 0 and more on the leader itself.",
            figures.silence * 1000,
        )
    yield _times(
        "raft_snapshot_takeSnapshot", "Milliseconds of a snapshot.", figures.snapshots
    )
    yield _gauge(
        "raft_snapshot_size_bytes",
        "Bytes of the newest snapshot taken here since the start.",
        figures.snapshot_bytes,
    )
    yield _gauge(
        "raft_snapshot_index", "What the newest covers.", figures.snapshot_index
    )


def _log(figures: NodeMetrics) -> Iterator[Metric]:
    yield _times(
        "raft_wal_storeLogs",
        "Milliseconds of a write of entries, its sync included.",
        figures.stores,
    )
    yield _count("raft_wal_log_entries_written", "Entries written.", figures.stored)
    yield _gauge("raft_wal_queue", "Writes that wait.", figures.waiting_writes)
    for name, value in figures.log.items():
        yield _count(f"raft_wal_{name}", "Of the log's files, since the start.", value)


def _peers(figures: NodeMetrics) -> Iterator[Metric]:
    families = {
        "raft_replication_lag": "Entries of the leader's log that a peer may lack.",
        "raft_replication_match_index": "Index up to which a peer has the log.",
        "raft_replication_inflight": "Requests to a peer without an answer.",
        "raft_replication_lastContact": "Milliseconds since a peer was last heard.",
        "raft_replication_undeliverable_index": (
            "Index of an entry that a peer does not take, 0 for none."
        ),
    }
    made = [
        GaugeMetricFamily(name, doc, labels=_PEER) for name, doc in families.items()
    ]
    for address, peer in figures.peers.items():
        values = (
            peer.lag,
            peer.match,
            peer.in_flight,
            peer.silence * 1000,
            peer.undeliverable,
        )
        for family, value in zip(made, values, strict=True):
            family.add_metric([address], value)
    yield from made
    yield _gauge("raft_peers", "Followers this leader sends to.", len(figures.peers))


def _quotas(quotas: Quotas) -> Iterator[Metric]:
    used, most = quotas.used, quotas.most
    yield _gauge("kv_keys", "Keys in the store.", used.keys)
    yield _gauge("kv_keys_max", "Its quota, max_state_keys.", most.keys)
    yield _gauge("kv_state_bytes", "Bytes of keys and sessions.", used.state_bytes)
    yield _gauge("kv_state_bytes_max", "Their quota.", most.state_bytes)
    yield _gauge("kv_sessions", "Sessions.", used.sessions)
    yield _gauge("kv_sessions_max", "Their quota.", most.sessions)
    yield _gauge(
        "kv_quota_warning",
        "Whether one of these quotas is 80 % used or more.",
        int(quotas.is_nearly_used),
    )


def _certificates(validities: Sequence[Validity]) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "txraft_certificate_not_after_seconds",
        "When a certificate in force expires, in Unix time, by its setting.",
        labels=("setting",),
    )
    for validity in validities:
        family.add_metric([validity.setting], validity.end.timestamp())
    yield family


def _http(served: RequestCounts) -> Iterator[Metric]:
    counts = UntypedMetricFamily(
        "api_http_requests", "Requests answered.", labels=("method", "path", "status")
    )
    for (method, path, status), count in served.counts.items():
        counts.add_metric([_text(method), _text(path), str(status)], count)
    yield counts
    times = HistogramMetricFamily(
        "api_http",
        "Milliseconds from a whole request to its answer.",
        labels=("method", "path"),
    )
    for (method, path), timer in served.times.items():
        _add_times(times, [_text(method), _text(path)], timer)
    yield times


def _gauge(name: str, doc: str, value: float) -> Metric:
    return GaugeMetricFamily(name, doc, value=value)


def _count(name: str, doc: str, value: float) -> Metric:
    """Make a counter without the suffix `_total` that the library adds to counters."""
    return UntypedMetricFamily(name, doc, value=value)


def _times(name: str, doc: str, timer: Timer) -> Metric:
    family = HistogramMetricFamily(name, doc, labels=())
    _add_times(family, [], timer)
    return family


def _add_times(
    family: HistogramMetricFamily, labels: Sequence[str], timer: Timer
) -> None:
    bounds = [*map(str, BOUNDS), "+Inf"]
    sums = list(accumulate(timer.counts))
    family.add_metric(
        labels, buckets=list(zip(bounds, sums, strict=True)), sum_value=timer.total
    )


def _as_json(metrics: Iterable[Metric]) -> dict[str, object]:
    """Return *metrics* as Consul's agents do, in the JSON of go-metrics."""
    gauges: list[dict[str, object]] = []
    samples: list[dict[str, object]] = []
    for metric in metrics:
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for name, labels, value, *_ in metric.samples:
            key = tuple(sorted(labels.items()))
            if metric.type != "histogram":
                gauges.append({"Name": name, "Value": value, "Labels": dict(key)})
            elif name.endswith("_count"):
                counts[key] = value
            elif name.endswith("_sum"):
                count = counts.get(key, 0)
                samples.append(
                    {
                        "Name": metric.name,
                        "Count": int(count),
                        "Sum": value,
                        "Mean": value / count if count else 0,
                        "Labels": dict(key),
                    }
                )
    return {
        "Timestamp": strftime("%Y-%m-%d %H:%M:%S +0000 UTC", gmtime()),
        "Gauges": gauges,
        "Points": [],
        "Counters": [],
        "Samples": samples,
    }


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")
