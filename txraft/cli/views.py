"""Ask all nodes at once for their view of themselves and of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txraft.addresses import normal_url
from txraft.cli.running import CommandJob
from txraft.client import ClientError, MalformedAnswer, Refused
from txraft.client.exchange import NoAnswer, NodeRequest, NotSent
from txraft.client.results import parse_json

LEADER = "Leader"
CANDIDATE = "Candidate"
FOLLOWER = "Follower"


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node's view of itself and of its cluster; *error* says why there is none.

    *urls* maps peer addresses to the HTTP addresses that it knows. *last_contact* is
    the number of seconds since it heard its leader, None for never. *refused_peers* are
    members that lost their data. *insecure_peers* tells whether peers need no TLS.
    *undeliverable* are entries that this leader cannot deliver to a follower.

    *level* is the highest level of the state machine that it understands, and
    *active_level* the active one. *outdated_peers* are members that do not understand
    that, as far as this leader knows. *stuck_seconds* is how long its state machine has
    hung. *skipped* are the entries that it skips, as INDEX:TERM:DIGEST. *version* is
    that of txraft.

    *cluster* is the identity of its cluster, "" while it knows none. *members* are in
    force since the entry at *configuration_index*; *nonvoters* are those without a
    vote. *silent_peers* maps members that this leader has not heard lately to seconds.
    *certificates* maps settings to the end of their certificate's validity.
    """

    url: str
    error: str | None = None
    address: str = ""
    state: str = ""
    term: int = 0
    leader: str = ""
    members: tuple[str, ...] = ()
    urls: Mapping[str, str] = field(default_factory=dict)
    last_index: int = 0
    commit_index: int = 0
    applied_index: int = 0
    snapshot_index: int = 0
    last_contact: float | None = None
    refused_peers: tuple[str, ...] = ()
    insecure_peers: bool = False
    undeliverable: tuple[str, ...] = ()
    level: int = 0
    active_level: int = 0
    outdated_peers: tuple[str, ...] = ()
    stuck_seconds: float = 0.0
    skipped: tuple[str, ...] = ()
    version: str = ""
    cluster: str = ""
    configuration_index: int = 0
    nonvoters: tuple[str, ...] = ()
    silent_peers: Mapping[str, float] = field(default_factory=dict)
    certificates: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether the node answered."""
        return self.error is None


async def all_views(job: CommandJob) -> list[NodeView]:
    """Ask every node that the user named, then the members that these know."""
    views = await _ask_all(job, dict.fromkeys(job.urls, ""))
    known = {
        view.urls[address]: address
        # The newest word last, so that it wins where nodes know different URLs.
        for view in sorted(views, key=lambda view: (view.term, view.commit_index))
        for address in view.members
        if address in view.urls
    }
    views = [replace(v, address=v.address or known.get(v.url, "")) for v in views]
    seen = {view.address for view in views} | {view.url for view in views}
    # An answer names these URLs: the token must not follow them to where the user would
    # not send it.
    may_go_to = job.client.calls.nodes.may_go_to
    others = {
        url: address
        for url, address in known.items()
        if seen.isdisjoint((url, address)) and may_go_to(url)
    }
    return views + await _ask_all(job, others)


async def _ask_all(job: CommandJob, urls: Mapping[str, str]) -> list[NodeView]:
    asked: list[Deferred[NodeView]] = [
        Deferred.fromCoroutine(view_of(job, url, address))
        for url, address in urls.items()
    ]
    # A cancelled command cancels what it waits for.
    together = DeferredList(asked, consumeErrors=True)
    results: Any = await together
    return [view for succeeded, view in results if succeeded]


async def view_of(job: CommandJob, url: str, address: str = "") -> NodeView:
    """Ask the node at *url* for its view; *address* is its peer address, if known."""
    try:
        told = await _json(job, url, "/v1/agent/self")
        nodes = await _json(job, url, "/v1/catalog/nodes")
        return parse_view(url, told, nodes)
    except (NotSent, NoAnswer) as error:
        return NodeView(url, str(error).removeprefix(f"{url}: "), address)
    except ClientError as error:
        return NodeView(url, str(error), address)


def parse_view(url: str, told: Any, nodes: Any) -> NodeView:
    """Make a view of the answers of `/v1/agent/self` and `/v1/catalog/nodes`.

    Raises: MalformedAnswer
    """
    try:
        stats = told["Stats"]["raft"]
        # Nodes that programs have registered are no members, and have no id.
        members = [node for node in nodes if node.get("ID") != ""]
        return NodeView(
            url=url,
            error=None,
            address=str(told["Config"].get("NodeID") or told["Config"]["NodeName"]),
            state=str(stats["state"]).capitalize(),
            term=int(stats.get("term", 0)),
            leader=str(told["Stats"]["consul"]["leader_addr"]),
            members=tuple(map(_address_of, members)),
            urls={
                _address_of(node): normal_url(str(node["Meta"]["http"]))
                for node in members
                if "http" in node["Meta"]
            },
            last_index=int(stats.get("last_log_index", 0)),
            commit_index=int(stats.get("commit_index", 0)),
            applied_index=int(stats.get("applied_index", 0)),
            snapshot_index=int(stats.get("last_snapshot_index", 0)),
            last_contact=parse_contact(str(stats.get("last_contact", "never"))),
            refused_peers=_names(stats.get("refused_peers", "")),
            insecure_peers=told.get("Meta", {}).get("insecure_peers") == "true",
            undeliverable=_listed(str(stats.get("undeliverable_entries", ""))),
            level=int(stats.get("level", 0)),
            active_level=int(stats.get("active_level", 0)),
            outdated_peers=_names(stats.get("outdated_peers", "")),
            stuck_seconds=float(stats.get("fsm_stuck_seconds", 0)),
            skipped=_names(stats.get("skipped_entries", "")),
            version=str(told["Config"].get("TxraftVersion", "")),
            cluster=str(stats.get("cluster", "")),
            configuration_index=int(stats.get("configuration_index", 0)),
            nonvoters=_names(stats.get("nonvoters", "")),
            silent_peers=_silent(str(stats.get("silent_peers", ""))),
            certificates={
                str(setting): _moment(end)
                for setting, end in told["Stats"].get("certificates", {}).items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"{url} does not answer like a txraft node") from error


def _address_of(node: Any) -> str:
    """Return the peer address of a catalog node, whose name may be another one."""
    return str(node["Meta"].get("address", node["Node"]))


def _names(text: object) -> tuple[str, ...]:
    return tuple(str(text).replace(", ", " ").split())


def _moment(text: str) -> datetime:
    """Read `2031-05-04T10:00:00Z`. Raises: ValueError"""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def _silent(text: str) -> dict[str, float]:
    """Read `b:1=4.0s, c:1=17.5s`. Raises: ValueError"""
    pairs = [each.rpartition("=") for each in _names(text)]
    return {address: float(seconds.removesuffix("s")) for address, _, seconds in pairs}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("; ")) if text else ()


def parse_contact(text: str) -> float | None:
    """Read `never`, `0` or `0.012s`, as seconds. Raises: ValueError"""
    if text == "never":
        return None
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    return float(text.removesuffix("s"))


async def _json(job: CommandJob, url: str, target: str) -> Any:
    response = await job.client.calls.ask_once(url, _get(target))
    if response.status != 200:
        raise Refused(response.status, response.sentence)
    return parse_json(response.body)


def _get(target: str) -> NodeRequest:
    return NodeRequest("GET", target, repeatable=True)
