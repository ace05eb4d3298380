"""Metrics for Prometheus: `GET /v1/agent/metrics?format=prometheus`.

`SECTIONS` is the table of metrics: the name, the kind, the sentence and the source of
each. The answers are made from it, and the manual's page of metrics
(`docs/metrics_page.py`). A new metric is a row of the table, and a test that its value
is true.

Where hashicorp/raft has a metric, its name is used, as its Prometheus sink writes it
(`raft.commitTime` is `raft_commitTime`). Times are milliseconds, as there. All values
are read when they are asked for. Only rare events and requests are counted as they
happen, so that metrics cost nothing on the path of an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
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
from txraft.node.events import LeaderObservation, Observation, Observer, RaftState
from txraft.node.metrics import BOUNDS, NodeMetrics, PeerMetrics, Timer
from txraft.transport.validity import Validities, Validity, no_certificates
from txraft.version import VERSION

PATH = b"/v1/agent/metrics"
PARAMETERS = frozenset({"format"})
_PROMETHEUS = (b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")
_COUNTED_STATES = (RaftState.LEADER, RaftState.CANDIDATE, RaftState.FOLLOWER)


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


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of all metrics, each read once for one answer."""

    node: NodeMetrics
    leads: bool
    became: Mapping[RaftState, int]
    leader_changes: int
    validities: Sequence[Validity]
    quotas: Quotas
    served: RequestCounts


class Kind(Enum):
    """The kinds of metrics, by their words in the manual."""

    GAUGE = "gauge"
    COUNTER = "counter"
    TIMES = "histogram"


Sample = tuple[Sequence[str], float | Timer]
"""The values of the labels, and a number or, for `Kind.TIMES`, a `Timer`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: a row of the table.

    *doc* is its sentence for Prometheus and for the manual, *advice* what the manual
    says beyond that, such as when to worry. *read* returns its samples, none if there
    is nothing to tell.
    """

    name: str
    kind: Kind
    doc: str
    read: Callable[[Sources], Iterable[Sample]]
    labels: tuple[str, ...] = ()
    advice: str = ""

    def family(self, sources: Sources) -> Metric:
        """Return the metric with its samples as of *sources*."""
        family = _FAMILIES[self.kind](self.name, self.doc, labels=self.labels)
        for labels, value in self.read(sources):
            if isinstance(family, HistogramMetricFamily):
                assert isinstance(value, Timer), self.name
                _add_times(family, labels, value)
            else:
                assert not isinstance(value, Timer), self.name
                family.add_metric(labels, value)
        return family


# A counter is untyped for Prometheus: the library would add the suffix `_total` to the
# name of a counter, and dashboards for hashicorp/raft would not find it.
_FAMILIES: Mapping[
    Kind,
    type[GaugeMetricFamily] | type[UntypedMetricFamily] | type[HistogramMetricFamily],
] = {
    Kind.GAUGE: GaugeMetricFamily,
    Kind.COUNTER: UntypedMetricFamily,
    Kind.TIMES: HistogramMetricFamily,
}


def _add_times(
    family: HistogramMetricFamily, labels: Sequence[str], timer: Timer
) -> None:
    bounds = [*map(str, BOUNDS), "+Inf"]
    sums = list(accumulate(timer.counts))
    family.add_metric(
        labels, buckets=list(zip(bounds, sums, strict=True)), sum_value=timer.total
    )


# The forms of rows


def _gauge(
    name: str, doc: str, read: Callable[[Sources], float | None], advice: str = ""
) -> Row:
    return Row(name, Kind.GAUGE, doc, _alone(read), advice=advice)


def _counter(
    name: str, doc: str, read: Callable[[Sources], float | None], advice: str = ""
) -> Row:
    return Row(name, Kind.COUNTER, doc, _alone(read), advice=advice)


def _times(
    name: str, doc: str, read: Callable[[Sources], Timer], advice: str = ""
) -> Row:
    return Row(name, Kind.TIMES, doc, _alone(read), advice=advice)


def _alone(
    read: Callable[[Sources], float | Timer | None],
) -> Callable[[Sources], Iterable[Sample]]:
    """Make the only sample of a metric without labels; None is no sample."""

    def samples(sources: Sources) -> Iterable[Sample]:
        value = read(sources)
        return [] if value is None else [((), value)]

    return samples


def _of_peers(
    name: str, doc: str, read: Callable[[PeerMetrics], float], advice: str = ""
) -> Row:
    """Make a gauge that a leader has for each follower."""

    def samples(sources: Sources) -> Iterable[Sample]:
        for address, peer in sources.node.peers.items():
            yield [address], read(peer)

    return Row(name, Kind.GAUGE, doc, samples, labels=("peer_id",), advice=advice)


def _of_log(
    kind: Kind, counted: str, doc: str = "Counted by the log store.", advice: str = ""
) -> Row:
    """Make a metric of what a `MeteredLog` counts under the name *counted*."""
    read = _alone(lambda m: m.node.log.get(counted))
    return Row(f"{_LOG_PREFIX}{counted}", kind, doc, read, advice=advice)


_LOG_PREFIX = "raft_wal_"


# The table


_NODE = (
    Row(
        "txraft_build_info",
        Kind.GAUGE,
        "1, with the version of txraft that runs.",
        lambda _: [([VERSION], 1)],
        labels=("version",),
    ),
    _gauge("raft_term", "The current term.", lambda m: m.node.term),
    _gauge(
        "raft_last_index", "Index of the newest entry.", lambda m: m.node.last_index
    ),
    _gauge(
        "raft_first_index", "Index of the oldest entry.", lambda m: m.node.first_index
    ),
    _gauge(
        "raft_commit_index",
        "Committed up to here.",
        lambda m: m.node.commit_index,
        advice="On all nodes it moves together with `raft_applied_index`.",
    ),
    _gauge("raft_applied_index", "Applied up to here.", lambda m: m.node.applied_index),
    _gauge(
        "raft_fsm_pending",
        "Entries that are committed but not yet applied.",
        lambda m: m.node.apply_backlog,
    ),
    _gauge(
        "raft_fsm_stuck",
        "Seconds for which the state machine has hung, 0 if it does not.",
        lambda m: m.node.stuck_seconds,
    ),
    _gauge(
        "raft_pending_entries",
        "Proposals without an outcome.",
        lambda m: m.node.pending_entries,
        advice="At their limit the node refuses more.",
    ),
    _gauge(
        "raft_pending_bytes",
        "Bytes of the proposals without an outcome.",
        lambda m: m.node.pending_bytes,
        advice="At their limit the node refuses more.",
    ),
    _counter(
        "raft_apply",
        "Proposals appended by this node as leader.",
        lambda m: m.node.appended,
    ),
    _times(
        "raft_commitTime",
        "Milliseconds from append to outcome, of one proposal at a time.",
        lambda m: m.node.commits,
    ),
    _gauge(
        "raft_leader_lastContact",
        "Milliseconds since the leader was heard; on the leader itself, since a quorum "
        "answered.",
        lambda m: None if m.node.silence is None else m.node.silence * 1000,
        advice="Beyond the heartbeat timeout an election follows.",
    ),
    _times(
        "raft_snapshot_takeSnapshot",
        "Milliseconds that a snapshot took.",
        lambda m: m.node.snapshots,
    ),
    _gauge(
        "raft_snapshot_size_bytes",
        "Bytes of the newest snapshot taken here since the start.",
        lambda m: m.node.snapshot_bytes,
    ),
    _gauge(
        "raft_snapshot_index",
        "Index of the last entry in the newest snapshot.",
        lambda m: m.node.snapshot_index,
    ),
)

_LOG = (
    _times(
        "raft_wal_storeLogs",
        "Milliseconds of a write of entries, its sync included.",
        lambda m: m.node.stores,
        advice="Half a heartbeat timeout is far too much.",
    ),
    _counter(
        "raft_wal_log_entries_written", "Entries written.", lambda m: m.node.stored
    ),
    _gauge(
        "raft_wal_queue",
        "Writes that wait for the disk.",
        lambda m: m.node.waiting_writes,
    ),
    _of_log(
        Kind.COUNTER,
        "log_appends",
        "Frames written since the start.",
        advice="Entries for each frame are the batching.",
    ),
    _of_log(Kind.COUNTER, "log_bytes_written", "Bytes written since the start."),
    _of_log(
        Kind.COUNTER,
        "log_sync_seconds",
        "Seconds spent in fdatasync alone since the start.",
    ),
    _of_log(Kind.COUNTER, "segment_rotations", "Segment files begun since the start."),
    _of_log(Kind.GAUGE, "segments", "Segment files that the log has."),
)

_REPLICATION = (
    _of_peers(
        "raft_replication_lag",
        "Entries of the leader's log that a peer may lack.",
        lambda peer: peer.lag,
        advice="If it grows, the peer is too slow.",
    ),
    _of_peers(
        "raft_replication_match_index",
        "Index up to which a peer has the log.",
        lambda peer: peer.match,
    ),
    _of_peers(
        "raft_replication_inflight",
        "Requests to a peer without an answer.",
        lambda peer: peer.in_flight,
    ),
    _of_peers(
        "raft_replication_lastContact",
        "Milliseconds since a peer was last heard.",
        lambda peer: peer.silence * 1000,
    ),
    _of_peers(
        "raft_replication_undeliverable_index",
        "Index of an entry that a peer does not take, 0 for none.",
        lambda peer: peer.undeliverable,
        advice="Its limits are lower, or the way there is too slow: `txraft doctor` "
        "names the peer.",
    ),
    _gauge(
        "raft_peers", "Followers this leader sends to.", lambda m: len(m.node.peers)
    ),
)

_LEADERSHIP = (
    _counter(
        "raft_state_leader",
        "How often this node became leader.",
        lambda m: m.became[RaftState.LEADER],
    ),
    _counter(
        "raft_state_candidate",
        "How often this node became candidate.",
        lambda m: m.became[RaftState.CANDIDATE],
    ),
    _counter(
        "raft_state_follower",
        "How often this node became follower.",
        lambda m: m.became[RaftState.FOLLOWER],
    ),
    _counter(
        "raft_leader_changes",
        "How often this node learned of another leader, or of none.",
        lambda m: m.leader_changes,
        advice="More than one an hour without a reason: look at network and disk.",
    ),
    _gauge(
        "raft_isLeader",
        "Whether this node leads.",
        lambda m: int(m.leads),
        advice="The sum over all nodes is 1. If it is not 1 for long, ask `txraft "
        "doctor`.",
    ),
)

_CERTIFICATES = (
    Row(
        "txraft_certificate_not_after_seconds",
        Kind.GAUGE,
        "When a certificate in force expires, in Unix time, by its setting.",
        lambda m: [([v.setting], v.end.timestamp()) for v in m.validities],
        labels=("setting",),
        advice="The settings are `tls.certificate`, `tls.ca` and the same under "
        "`http.tls`; `tls.certificate.issuer` is for issuers in its file. Worry 30 "
        "days ahead: `... - time() < 30 * 86400`.",
    ),
)

_QUOTAS = (
    _gauge("kv_keys", "Keys in the store.", lambda m: m.quotas.used.keys),
    _gauge("kv_keys_max", "Its quota, max_state_keys.", lambda m: m.quotas.most.keys),
    _gauge(
        "kv_state_bytes",
        "Bytes that keys and sessions take in memory.",
        lambda m: m.quotas.used.state_bytes,
    ),
    _gauge(
        "kv_state_bytes_max",
        "Their quota, max_state_bytes.",
        lambda m: m.quotas.most.state_bytes,
    ),
    _gauge("kv_sessions", "Sessions.", lambda m: m.quotas.used.sessions),
    _gauge(
        "kv_sessions_max",
        "Their quota, max_sessions.",
        lambda m: m.quotas.most.sessions,
    ),
    _gauge(
        "kv_quota_warning",
        "Whether one of these quotas is 80 % used or more.",
        lambda m: int(m.quotas.is_nearly_used),
        advice="Above a quota, writes are answered with 507: delete, or raise it.",
    ),
)

_HTTP = (
    Row(
        "api_http_requests",
        Kind.COUNTER,
        "Requests answered.",
        lambda m: (
            ([_text(method), _text(path), str(status)], count)
            for (method, path, status), count in m.served.counts.items()
        ),
        labels=("method", "path", "status"),
    ),
    Row(
        "api_http",
        Kind.TIMES,
        "Milliseconds from a whole request to its answer.",
        lambda m: (
            ([_text(method), _text(path)], timer)
            for (method, path), timer in m.served.times.items()
        ),
        labels=("method", "path"),
    ),
)

SECTIONS: Mapping[str, Sequence[Row]] = {
    "The node": _NODE,
    "Leadership": _LEADERSHIP,
    "The log": _LOG,
    "Replication, on the leader": _REPLICATION,
    "Certificates": _CERTIFICATES,
    "The key-value store and its quotas": _QUOTAS,
    "Requests": _HTTP,
}
"""The table of metrics, by the sections of the manual's page."""

_NAMES = frozenset(row.name for rows in SECTIONS.values() for row in rows)


def _others_of_log(counted: Iterable[str]) -> Iterator[Row]:
    """Make rows for what only a log store of the application's own counts."""
    for name in counted:
        if f"{_LOG_PREFIX}{name}" not in _NAMES:
            yield _of_log(Kind.COUNTER, name)


# Serving them


class Metrics:
    """Serves the metrics of the node *raft*, its keys and the requests *served*."""

    def __init__(
        self,
        raft: RaftNode,
        quotas: Quotas,
        served: RequestCounts,
        validities: Validities = no_certificates,
    ) -> None:
        self._validities = validities
        self._raft = raft
        self._quotas = quotas
        self.served = served
        self._became = dict.fromkeys(_COUNTED_STATES, 0)
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
        sources = self._sources()
        for rows in SECTIONS.values():
            for row in rows:
                yield row.family(sources)
        for row in _others_of_log(sources.node.log):
            yield row.family(sources)

    def _sources(self) -> Sources:
        return Sources(
            node=self._raft.metrics(),
            leads=self._raft.state is RaftState.LEADER,
            became=self._became,
            leader_changes=self._leader_changes,
            validities=self._validities(),
            quotas=self._quotas,
            served=self.served,
        )

    def _observed(self, observation: Observation) -> None:
        data = observation.data
        if isinstance(data, LeaderObservation):
            self._leader_changes += 1
        elif isinstance(data, RaftState) and data in self._became:
            self._became[data] += 1


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
