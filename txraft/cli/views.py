"""What each node says of itself and of the cluster, asked all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txraft.cli.running import Job
from txraft.client import ClientError, MalformedAnswer, Refused
from txraft.client.records import parse_json, parse_keys
from txraft.exchange import NoAnswer, NotSent, Question

LEADER = "Leader"
CANDIDATE = "Candidate"
FOLLOWER = "Follower"


@dataclass(frozen=True, slots=True)
class View:
    """One node as it sees the cluster; *error* says why it has not told.

    *last_contact* is how many seconds ago it heard its leader, None for never.
    """

    url: str
    error: str | None = None
    address: str = ""
    state: str = ""
    term: int = 0
    leader: str = ""
    members: tuple[str, ...] = ()
    last_index: int = 0
    commit_index: int = 0
    applied_index: int = 0
    snapshot_index: int = 0
    last_contact: float | None = None

    @property
    def answers(self) -> bool:
        """Whether it has told anything."""
        return self.error is None


async def all_views(job: Job) -> list[View]:
    """Ask every node that the command was told of."""
    asked: list[Deferred[View]] = [
        Deferred.fromCoroutine(view_of(job, url)) for url in job.urls
    ]
    # A cancelled command cancels what it waits for.
    together = DeferredList(asked, consumeErrors=True)
    results: Any = await together
    return [view for succeeded, view in results if succeeded]


async def view_of(job: Job, url: str) -> View:
    """Ask the node at *url* what it sees."""
    try:
        told = await _json(job, url, "/v1/agent/self")
        reply = await job.client.calls.ask_once(url, _get("/v1/status/peers"))
        return parse_view(url, told, parse_keys(reply.body))
    except (NotSent, NoAnswer) as error:
        return View(url, str(error).removeprefix(f"{url}: "))
    except ClientError as error:
        return View(url, str(error))


def parse_view(url: str, told: Any, members: list[str]) -> View:
    """Read what `/v1/agent/self` answers. Raises: MalformedAnswer"""
    try:
        stats = told["Stats"]["raft"]
        return View(
            url,
            None,
            str(told["Config"]["NodeName"]),
            str(stats["state"]).capitalize(),
            int(stats.get("term", 0)),
            str(told["Stats"]["consul"]["leader_addr"]),
            tuple(members),
            int(stats.get("last_log_index", 0)),
            int(stats.get("commit_index", 0)),
            int(stats.get("applied_index", 0)),
            int(stats.get("last_snapshot_index", 0)),
            parse_contact(str(stats.get("last_contact", "never"))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedAnswer(f"{url} does not tell what a node tells") from error


def parse_contact(text: str) -> float | None:
    """Read `never`, `0` or `0.012s`, as seconds. Raises: ValueError"""
    if text == "never":
        return None
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    return float(text.removesuffix("s"))


async def _json(job: Job, url: str, target: str) -> Any:
    reply = await job.client.calls.ask_once(url, _get(target))
    if reply.status != 200:
        raise Refused(reply.status, reply.sentence)
    return parse_json(reply.body)


def _get(target: str) -> Question:
    return Question("GET", target, repeatable=True)
