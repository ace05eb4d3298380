"""`txraft members`, `status`, `doctor`, `transfer` and `peer`: act on a cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import click

from txraft.cli.diagnosis import Severity, diagnose, leader_of, tolerance
from txraft.cli.exits import Exit
from txraft.cli.running import CommandJob, online
from txraft.cli.views import NodeView, all_views
from txraft.client import MalformedAnswer
from txraft.client.exchange import NodeRequest
from txraft.client.results import parse_json

CONFIGURATION = "/v1/operator/raft/configuration"
PEER = "/v1/operator/raft/peer"
HEALTH = "/v1/operator/autopilot/health"
TRANSFER = "/v1/operator/raft/transfer-leader"
MOST_IN_VAIN = 15
"""Answers in a row without progress after which a new member does not catch up."""


@click.command("members")
@click.option("--stale", is_flag=True, help="Let any node answer; its list may be old.")
@online
async def members(job: CommandJob, stale: bool) -> None:
    """List the members of the cluster."""
    target = f"{CONFIGURATION}?stale=1" if stale else CONFIGURATION
    request = NodeRequest("GET", target, repeatable=True)
    told = parse_json((await job.client.calls.expect(request)).body)
    if job.output.as_json:
        job.output.json(told)
        return
    try:
        rows = [
            (
                server["ID"],
                server["Address"],
                server["Leader"],
                server["Voter"],
                server.get("HTTP") or "unknown",
            )
            for server in told["Servers"]
        ]
    except (KeyError, TypeError) as error:
        raise MalformedAnswer("an answer lists no servers") from error
    job.output.table(("ID", "ADDRESS", "LEADER", "VOTER", "HTTP"), rows)


@click.command("status")
@online
async def status(job: CommandJob) -> int:
    """Show all nodes in one table, with role, term and lag.

    The table also has the indexes, and when each node last heard the leader.

    It shows the nodes named with --http-addr or TXRAFT_HTTP_ADDR, and all members whose
    HTTP addresses these know. The status is 1 if a node does not answer or none leads.
    """
    views = await all_views(job)
    leader = leader_of(views)
    if job.output.as_json:
        job.output.json([asdict(view) for view in views])
    headings = ("NODE", "ROLE", "TERM", "LAST", "COMMIT", "APPLIED", "LAG", "CONTACT")
    job.output.table(
        (*headings, "VERSION", "HTTP"), [_row(view, leader) for view in views]
    )
    for view in views:
        if view.error is not None:
            job.output.problem(f"txraft: {view.url}: {view.error}")
        for peer in view.refused_peers:
            job.output.problem(
                f"txraft: {view.address} refuses {peer}, whose data is not what it was"
            )
        for peer in view.outdated_peers:
            job.output.problem(
                f"txraft: {peer} does not understand level {view.active_level} of "
                "the state machine, which the cluster uses: upgrade it"
            )
        for undeliverable in view.undeliverable:
            job.output.problem(
                f"txraft: {view.address} cannot deliver {undeliverable}; "
                "`txraft doctor` says what to do"
            )
        if view.insecure_peers:
            job.output.problem(
                f"txraft: {view.address} accepts peers without TLS (insecure_peers)"
            )
    silent = {} if leader is None else leader.silent_peers
    for peer, seconds in silent.items():
        job.output.problem(
            f"txraft: the leader has not heard {peer} for {seconds:.0f} s"
        )
    asked = {view.address for view in views} | set(silent)
    unasked = [] if leader is None else [m for m in leader.members if m not in asked]
    if unasked:
        job.output.problem(
            f"txraft: not asked, as nobody knows their HTTP addresses: "
            f"{', '.join(unasked)}"
        )
    if leader is None:
        job.output.problem("txraft: none of these leads; `txraft doctor` says why")
    is_well = leader is not None and all(view.answers for view in views)
    is_well = is_well and not silent
    return Exit.OK if is_well else Exit.NO


@click.command("doctor")
@online
async def doctor(job: CommandJob) -> int:
    """Find what is wrong, and say what to do.

    It finds a missing leader, a slow node, members that do not hear each other, and
    certificates that expire soon, for example.

    It asks the nodes named with --http-addr, and all members whose HTTP addresses these
    know. The status is 1 if a fault was found.
    """
    views = await all_views(job)
    findings = diagnose(views)
    faults = [each for each in findings if each.severity is Severity.FAULT]
    if job.output.as_json:
        job.output.json(
            [{"severity": f.severity.value, "sentence": f.sentence} for f in findings]
        )
    for finding in findings:
        job.output.line(f"{finding.severity.value}: {finding.sentence}.")
    if not findings:
        leader = leader_of(views)
        assert leader is not None, "a missing leader is a fault"
        job.output.line(
            f"All is well: {leader.address} leads term {leader.term}, "
            f"{len(views)} of {len(leader.members)} members were asked, and "
            f"{tolerance(leader)} more may fail."
        )
    return Exit.NO if faults else Exit.OK


@click.command("transfer")
@click.argument("target", required=False)
@online
async def transfer(job: CommandJob, target: str | None) -> None:
    """Transfer leadership to TARGET, an id shown by `members`.

    Without TARGET it goes to the voter with the most complete log.
    """
    query = f"?id={quote(target)}" if target else ""
    await job.client.calls.expect(NodeRequest("PUT", TRANSFER + query, b""))
    _done(job, "Leadership was transferred.")


@click.group("peer")
def peer() -> None:
    """Add and remove members."""


@peer.command("add")
@click.argument("address")
@click.option(
    "--force",
    is_flag=True,
    help="Add it without asking who answers at ADDRESS, even if nobody does. A cluster "
    "of one or two may stop working until it answers.",
)
@online
async def add(job: CommandJob, address: str, force: bool) -> int:
    """Make the node at the peer ADDRESS (host:port) a member.

    Start it first, with join: true, because it is asked for its identity. At protocol
    version 3 it gets its vote once it has caught up. Adding a member again does
    nothing.
    """
    target = f"{PEER}?address={quote(address)}"
    if force:
        target += "&force=1"
    # The request is repeated until the member has its vote: each answer 202 tells how
    # many entries it still lacks. Only answers without progress count as in vain, so
    # that a long way to catch up is no failure.
    least, in_vain = None, 0
    while True:
        request = NodeRequest("PUT", target, b"", repeatable=True)
        response = await job.client.calls.expect(request, 202)
        if response.status == 200:
            break
        behind = _entries_behind(parse_json(response.body))
        job.output.problem(
            f"txraft: {address} is a member, but lacks {behind} entries for a vote"
        )
        in_vain = 0 if least is None or behind < least else in_vain + 1
        least = behind if least is None else min(least, behind)
        if in_vain >= MOST_IN_VAIN:
            job.output.problem(
                f"txraft: {address} does not catch up. See its log; then add it again, "
                "which goes on from here, or remove it"
            )
            return Exit.NO
    _done(job, f"{address} is a member. {await _tolerance(job)}")
    return Exit.OK


def _entries_behind(told: Any) -> int:
    try:
        return int(told["Behind"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer("an answer does not say how far a member is") from error


async def _tolerance(job: CommandJob) -> str:
    """Describe in one sentence how many voters may fail now."""
    request = NodeRequest("GET", HEALTH, repeatable=True)
    told = parse_json((await job.client.calls.expect(request, 429)).body)
    try:
        voters = sum(server["Voter"] is True for server in told["Servers"])
        tolerance = int(told["FailureTolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer("an answer does not tell of the members") from error
    best = (voters - 1) // 2
    if tolerance < best:
        return f"Of {voters} voters {tolerance} may fail, and {best} once all are well."
    more = "" if best else ": add a third" if voters == 2 else ": add two more"
    return f"Of {voters} voters {best or 'none'} may fail{more}."


@peer.command("remove")
@click.argument("address")
@online
async def remove(job: CommandJob, address: str) -> None:
    """Remove the member at the peer ADDRESS (host:port)."""
    target = f"{PEER}?address={quote(address)}"
    await job.client.calls.expect(NodeRequest("DELETE", target))
    _done(job, f"{address} is no member any more.")


def _done(job: CommandJob, sentence: str) -> None:
    if job.output.as_json:
        job.output.json(True)
    job.output.line(sentence)


def _row(view: NodeView, leader: NodeView | None) -> tuple[object, ...]:
    if view.error is not None:
        return (
            view.address or "?",
            "silent",
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            view.url,
        )
    lag = None if leader is None else max(0, leader.commit_index - view.commit_index)
    contact = view.last_contact
    return (
        view.address,
        view.state.lower(),
        view.term,
        view.last_index,
        view.commit_index,
        view.applied_index,
        lag,
        "never" if contact is None else f"{contact * 1000:.0f} ms",
        view.version or None,
        view.url,
    )
