"""What each node says of itself and of the cluster, asked all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txraft.addresses import normal_url
from txraft.cli.running import Job
from txraft.client import ClientError, MalformedAnswer, Refused
from txraft.client.exchange import NoAnswer, NodeRequest, NotSent
from txraft.client.results import parse_json

LEADER = "Leader"
CANDIDATE = "Candidate"
FOLLOWER = "Follower"


@dataclass(frozen=True, slots=True)
class View:
    """One node as it sees the cluster; *error* says why it has not told.

    *urls* are the HTTP addresses that it knows, by peer address. *last_contact* is how
    many seconds ago it heard its leader, None for never. *refused_peers* are members
    that come without their data, *insecure_peers* is whether peers need no TLS.
    *undeliverable* are entries that it, the leader, does not get to a follower.

    *level* is the highest level of the state machine that it understands,
    *active_level* the one that is active, and *outdated_peers* are members that
    understand less than that, as the leader has heard.
    *stuck_seconds* is for how long its state machine hangs. *skipped* are the entries
    that it skips, as INDEX:TERM:DIGEST. *version* is that of txraft.

    *cluster* is the identity of the cluster whose entries it holds, "" while it is
    none that it knows; *members* are in force since the entry at
    *configuration_index*, and *nonvoters* are those without a vote. *silent_peers*
    are members that it, the leader, has not heard lately, with the seconds.
    *certificates* maps settings to when what is in force of them expires.
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
        """Whether it has told anything."""
        return self.error is None


async def all_views(job: Job) -> list[View]:
    """Ask every node that the command was told of, and those that they know of."""
    views = await _ask_all(job, dict.fromkeys(job.urls, ""))
    known = {
        view.urls[address]: address
        for view in sorted(views, key=lambda view: (view.term, view.commit_index))
        for address in view.members
        if address in view.urls
    }
    views = [replace(v, address=v.address or known.get(v.url, "")) for v in views]
    seen = {view.address for view in views} | {view.url for view in views}
    may_go_to = job.client.calls.nodes.may_go_to
    others = {
        url: address
        for url, address in known.items()
        if seen.isdisjoint((url, address)) and may_go_to(url)
    }
    return views + await _ask_all(job, others)


async def _ask_all(job: Job, urls: Mapping[str, str]) -> list[View]:
    asked: list[Deferred[View]] = [
        Deferred.fromCoroutine(view_of(job, url, address))
        for url, address in urls.items()
    ]
    # A cancelled command cancels what it waits for.
    together = DeferredList(asked, consumeErrors=True)
    results: Any = await together
    return [view for succeeded, view in results if succeeded]


async def view_of(job: Job, url: str, address: str = "") -> View:
    """Ask the node at *url*, said to be that at *address*, what it sees."""
    try:
        told = await _json(job, url, "/v1/agent/self")
        nodes = await _json(job, url, "/v1/catalog/nodes")
        return parse_view(url, told, nodes)
    except (NotSent, NoAnswer) as error:
        return View(url, str(error).removeprefix(f"{url}: "), address)
    except ClientError as error:
        return View(url, str(error), address)


def parse_view(url: str, told: Any, nodes: Any) -> View:
    """Read what `/v1/agent/self` and `/v1/catalog/nodes` answer.

    Raises: MalformedAnswer
    """
    try:
        stats = told["Stats"]["raft"]
        # Nodes that programs have registered are no members, and have no id.
        members = [node for node in nodes if node.get("ID") != ""]
        return View(
            url,
            None,
            str(told["Config"].get("NodeID") or told["Config"]["NodeName"]),
            str(stats["state"]).capitalize(),
            int(stats.get("term", 0)),
            str(told["Stats"]["consul"]["leader_addr"]),
            tuple(map(_address_of, members)),
            {
                _address_of(node): normal_url(str(node["Meta"]["http"]))
                for node in members
                if "http" in node["Meta"]
            },
            int(stats.get("last_log_index", 0)),
            int(stats.get("commit_index", 0)),
            int(stats.get("applied_index", 0)),
            int(stats.get("last_snapshot_index", 0)),
            parse_contact(str(stats.get("last_contact", "never"))),
            _names(stats.get("refused_peers", "")),
            told.get("Meta", {}).get("insecure_peers") == "true",
            _listed(str(stats.get("undeliverable_entries", ""))),
            int(stats.get("level", 0)),
            int(stats.get("active_level", 0)),
            _names(stats.get("outdated_peers", "")),
            float(stats.get("fsm_stuck_seconds", 0)),
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
        raise MalformedAnswer(f"{url} does not tell what a node tells") from error


def _address_of(node: Any) -> str:
    """Return the peer address of a node of the catalog, which may have another name."""
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


async def _json(job: Job, url: str, target: str) -> Any:
    response = await job.client.calls.ask_once(url, _get(target))
    if response.status != 200:
        raise Refused(response.status, response.sentence)
    return parse_json(response.body)


def _get(target: str) -> NodeRequest:
    return NodeRequest("GET", target, repeatable=True)
