"""Find the faults of a cluster from the reports of its nodes, and say what to do.

The reports come from `views`; nothing is requested here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from txraft.cli.views import CANDIDATE, LEADER, NodeView
from txraft.transport.validity import ISSUER, ending, utc_now, way_out

LAG_ENTRIES = 1000
CONTACT_SECONDS = 2.0


class Severity(Enum):
    """The weight of a finding: a fault needs action, a warning a look."""

    FAULT = "fault"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence that says what is wrong, and what to do."""

    severity: Severity
    sentence: str


def diagnose(views: Sequence[NodeView], now: datetime | None = None) -> list[Finding]:
    """List the findings, faults first; the list is empty when all is well.

    If nodes of two clusters answer, the nodes of the other cluster are named, and
    nothing else is said of them. No finding advises to add a node that has data.
    """
    answering = _by_member(views)
    found = [*_silent(views)]
    if not answering:
        return found
    split = [*_clusters(answering)]
    answering = one_cluster(answering)
    split += _bootstraps(answering)
    leader = leader_of(answering)
    found += split
    if leader is None and split:
        # Any other reason for the missing leader would be a guess here, and its advice
        # could destroy the data that tells the clusters apart.
        found.append(_fault("there is no leader: settle that first"))
    else:
        unnamed = sum(not view.answers and not view.address for view in views)
        found += _quorum(answering, leader, unnamed, views)
    found += _leaders(answering, leader)
    found += _membership(answering, bool(split))
    if leader is not None:
        found += _followers(answering, leader)
    found += _appliers(answering)
    found += _strangers(answering)
    found += _versions(answering)
    found += _skips(answering)
    found += _certificates(answering, now or utc_now())
    # Stable: within each kind they stay in the order of the causes above.
    return sorted(found, key=lambda each: each.severity is not Severity.FAULT)


def leader_of(views: Sequence[NodeView]) -> NodeView | None:
    """Return the node that leads; if several say so, the one of the highest term."""
    # Not the first: a leader that was cut off says so until its lease has ended.
    leaders = [view for view in views if view.answers and view.state == LEADER]
    return max(leaders, key=lambda view: view.term, default=None)


def _strangers(views: Sequence[NodeView]) -> Iterator[Finding]:
    refusing: dict[str, list[str]] = {}
    for view in views:
        for peer in view.refused_peers:
            refusing.setdefault(peer, []).append(view.address)
    for peer, members in refusing.items():
        yield _fault(
            f"{peer} is refused by {', '.join(members)}: its data directory is not the "
            "one it had as a member. Remove it from the cluster, start it with an "
            "empty data directory and join: true, and add it again"
        )
    insecure = [view.address for view in views if view.insecure_peers]
    if insecure:
        yield _warning(
            f"{', '.join(insecure)} accepts peers without TLS, as insecure_peers is "
            "set: whoever reaches the port can destroy the cluster"
        )


def _versions(views: Sequence[NodeView]) -> Iterator[Finding]:
    active = max((view.active_level for view in views), default=0)
    outdated = {peer for view in views for peer in view.outdated_peers}
    outdated |= {view.address for view in views if view.level < active}
    for peer in sorted(outdated):
        yield _fault(
            f"{peer} does not understand level {active} of the state machine, which "
            "the cluster uses: install the version that the others run"
        )
    newest = max((view.level for view in views), default=0)
    older = [view.address for view in views if view.level < newest]
    # Without older ones the leader is about to activate it: nothing is wrong.
    if newest > active and older:
        yield _warning(
            f"level {newest} of the state machine is not active, as {', '.join(older)} "
            "does not understand it: upgrade every member"
        )


def _certificates(views: Sequence[NodeView], now: datetime) -> Iterator[Finding]:
    """Report certificates that expire soon; those of one authority together."""
    expiring: dict[tuple[str, datetime], list[str]] = {}
    for view in views:
        for setting, end in view.certificates.items():
            expiring.setdefault((setting, end), []).append(view.address)
    for (setting, end), members in expiring.items():
        told = ending(end, now)
        if told is not None:
            # An issuer that others can do without does no harm.
            is_fault = end <= now and not setting.endswith(ISSUER)
            finding = _fault if is_fault else _warning
            yield finding(
                f"{setting} of {', '.join(members)}: {told}: {way_out(setting)}"
            )


def _skips(views: Sequence[NodeView]) -> Iterator[Finding]:
    """Compare the entries that members have skipped: all must skip the same."""
    for entry in dict.fromkeys(each for view in views for each in view.skipped):
        skipping = ", ".join(view.address for view in views if entry in view.skipped)
        index, term, digest = entry.split(":")
        for view in views:
            if entry in view.skipped:
                continue
            if view.applied_index < int(index):
                # It has not come there: it will stop like the others. One that is past
                # it has applied the entry, and no skip can take that back.
                yield _warning(
                    f"{view.address} will stop at entry {index}, which {skipping} "
                    "skips: then do there `txraft log skip DATA_DIR --index "
                    f"{index} --term {term} --digest {digest}`"
                )
            else:
                yield _fault(
                    f"{view.address} has applied entry {index}, which {skipping} has "
                    "skipped: their states differ. Remove that member from the "
                    "cluster, empty its data directory and add it again; if it leads, "
                    "transfer leadership first"
                )


def _silent(views: Sequence[NodeView]) -> Iterator[Finding]:
    for view in views:
        if view.error is not None:
            yield _fault(
                f"{view.url} does not answer: {view.error}. If its process runs, see "
                "its log; if not, start it"
            )


def tolerance(leader: NodeView) -> int:
    """Return how many more voters may fail, by those that *leader* hears."""
    voters = _voters(leader)
    well = [address for address in voters if address not in leader.silent_peers]
    return max(0, len(well) - len(voters) // 2 - 1)


def one_cluster(views: Sequence[NodeView]) -> list[NodeView]:
    """Return the *views* of one cluster, the one that works best.

    Nodes that know no cluster yet are included.
    """
    groups = _by_cluster(views)
    if len(groups) < 2:
        return list(views)

    def standing(cluster: str) -> tuple[bool, int, int]:
        group = groups[cluster]
        furthest = max(view.commit_index for view in group)
        return leader_of(group) is not None, len(group), furthest

    best = max(groups, key=standing)
    return [view for view in views if view.cluster in (best, "")]


def _by_member(views: Sequence[NodeView]) -> list[NodeView]:
    """Return one answering view for each node, which may have several addresses."""
    found: dict[tuple[str, str], NodeView] = {}
    for view in views:
        if view.answers:
            found.setdefault((view.address, view.cluster), view)
    return list(found.values())


def _by_cluster(views: Sequence[NodeView]) -> dict[str, list[NodeView]]:
    groups: dict[str, list[NodeView]] = {}
    for view in views:
        if view.cluster:
            groups.setdefault(view.cluster, []).append(view)
    return groups


def _clusters(views: Sequence[NodeView]) -> Iterator[Finding]:
    groups = _by_cluster(views)
    if len(groups) > 1:
        told = "; ".join(
            f"{', '.join(view.address for view in group)} of {cluster[:8]}"
            for cluster, group in groups.items()
        )
        yield _fault(
            f"members of {len(groups)} clusters answer: {told}. They were bootstrapped "
            "more than once, or one was recovered without the others, and they never "
            "become one: do not add a node of one to the other. Find out which cluster "
            "has the data that you need, keep it, and stop the other nodes. Data that "
            "only these hold is lost with their data directories: save it before you "
            "empty them, start them with join: true and add them with `txraft peer add`"
        )


def _bootstraps(views: Sequence[NodeView]) -> Iterator[Finding]:
    for view, other in _differently_bootstrapped(views):
        yield _fault(
            f"{view.address} and {other.address} were bootstrapped with different "
            f"members: {', '.join(view.members)}, and {', '.join(other.members)}. Stop "
            "those that have the wrong list. If no client has used them, empty their "
            "data directories; then bootstrap them with the same list everywhere, or "
            "let them join with join: true"
        )


def _differently_bootstrapped(
    views: Sequence[NodeView],
) -> Iterator[tuple[NodeView, NodeView]]:
    """Find pairs of nodes whose memberships at one index differ.

    In one cluster that cannot be.
    """
    first: dict[int, NodeView] = {}
    for view in views:
        index = view.configuration_index
        # A change of members that is not committed may still be replaced by another one
        # at the same index, so it proves nothing. Index 1 is the bootstrap itself.
        is_certain = view.members and index and index <= max(1, view.commit_index)
        if not is_certain:
            continue
        known = first.setdefault(index, view)
        if set(known.members) != set(view.members):
            yield known, view


def _leaders(views: Sequence[NodeView], leader: NodeView | None) -> Iterator[Finding]:
    for rival in views:
        if rival.state == LEADER and rival is not leader and leader is not None:
            yield _fault(
                f"{rival.address} says that it leads term {rival.term}, and "
                f"{leader.address} that it leads term {leader.term}. The former is cut "
                "off and steps down within its lease; ask again in a second. If both "
                "go on, they are of two clusters: stop one, and change no members"
            )


def _voters(view: NodeView) -> list[str]:
    return [address for address in view.members if address not in view.nonvoters]


def _quorum(
    views: Sequence[NodeView],
    leader: NodeView | None,
    unnamed: int,
    asked: Sequence[NodeView],
) -> Iterator[Finding]:
    newest = _newest(views)
    voters = _voters(newest)
    heard = {view.address for view in views}
    if leader is None:
        alive = [address for address in voters if address in heard]
        missing = [address for address in voters if address not in heard]
        yield from _no_leader(views, voters, alive, missing, len(voters) // 2 + 1)
        return
    yield from _unheard(leader, heard)
    told = {view.address for view in asked} | set(leader.silent_peers)
    unasked = [address for address in leader.members if address not in told]
    if len(unasked) > unnamed:
        yield _warning(
            f"not asked: {len(unasked) - unnamed} of {', '.join(unasked)}. Name their "
            "HTTP addresses with --http-addr to have them examined"
        )


def _unheard(leader: NodeView, answering: set[str]) -> Iterator[Finding]:
    """Report members that the leader does not hear, and how many more may fail."""
    voters, left = _voters(leader), tolerance(leader)
    stands = (
        "the next failure of a voter stops everything"
        if not left
        else f"it stands {left} more failure{'s' if left > 1 else ''}"
    )
    for address, seconds in leader.silent_peers.items():
        # It was removed, and the leader still knows it for a moment.
        if address not in leader.members:
            continue
        role = "voter" if address in voters else "member"
        why = (
            "it answers here, so the way between their peer addresses is broken: check "
            "advertise, firewalls and TLS"
            if address in answering
            else "start it, or see its log and the way to it; if it is gone for good, "
            f"`txraft peer remove {address}`"
        )
        yield _fault(
            f"the leader {leader.address} has not heard the {role} {address} for "
            f"{seconds:.0f} s: {why}. Of {len(voters)} voters "
            f"{len(voters) - sum(v in leader.silent_peers for v in voters)} are well: "
            f"{stands}"
        )


def _no_leader(
    views: Sequence[NodeView],
    members: Sequence[str],
    alive: Sequence[str],
    missing: Sequence[str],
    quorum: int,
) -> Iterator[Finding]:
    if not members:
        yield _fault(
            "there is no leader: no node that answers is a member of any cluster. "
            "They were started with join: true and wait to be added; ask a member "
            "with `txraft peer add`"
        )
    elif len(alive) < quorum:
        yield _fault(
            f"there is no leader: of {len(members)} members {len(alive)} answer, and "
            f"{quorum} are needed. Start {', '.join(missing)}. Only if they are lost "
            "for ever, see `txraft recover`"
        )
    elif any(view.leader for view in views):
        names = Counter(view.leader for view in views if view.leader)
        yield _fault(
            f"{', '.join(names)} is believed to lead, but it does not answer or does "
            "not say so itself: an election is likely under way; ask again in a second"
        )
    else:
        candidates = [view for view in views if view.state == CANDIDATE]
        terms = ", ".join(f"{view.address} in term {view.term}" for view in candidates)
        campaign = f"; they campaign in vain: {terms}" if candidates else ""
        yield _fault(
            f"there is no leader although {len(alive)} of {len(members)} members "
            f"answer{campaign}. Ask again in a second; if that does not help, they do "
            "not reach each other at their peer addresses: check advertise, firewalls "
            "and TLS, and their logs"
        )


def _membership(views: Sequence[NodeView], is_split: bool) -> Iterator[Finding]:
    newest = _newest(views)
    members = newest.members
    for view in views:
        if members and view.address not in members:
            # A node with another bootstrap was reported by `_bootstraps` already.
            if not is_split or not view.members:
                yield _stranger(view, newest)
        elif set(view.members) != set(members) and not _is_bootstrapped_otherwise(
            view, newest
        ):
            yield _warning(
                f"{view.address} knows other members ({', '.join(view.members)}): it "
                "lags, or is in another cluster"
            )
    if len(members) == 2:
        yield _warning(
            "two members stand no failure at all: when either is down, nothing works. "
            "Add a third"
        )
    elif len(members) > 2 and len(members) % 2 == 0:
        yield _warning(
            f"{len(members)} members stand no more failures than {len(members) - 1}: "
            "an odd number is better"
        )


def _is_bootstrapped_otherwise(view: NodeView, newest: NodeView) -> bool:
    return any(True for _ in _differently_bootstrapped([newest, view]))


def _stranger(view: NodeView, newest: NodeView) -> Finding:
    """Advise what to do with a node that answers and is no member.

    Only an empty one may be added: another one would bring its own log, or a vote that
    it gave in another cluster.
    """
    if not view.members and not view.last_index and not view.cluster:
        if newest.silent_peers:
            # One more voter can raise the quorum, which then needs those that are down.
            return _warning(
                f"{view.address} answers but is no member. Before you add it, start or "
                f"remove {', '.join(newest.silent_peers)}"
            )
        return _warning(
            f"{view.address} answers but is no member; add it with `txraft peer "
            f"add {view.address}`, or stop it"
        )
    if view.cluster and view.cluster == newest.cluster:
        return _warning(
            f"{view.address} was a member and is none any more; stop it. Do not add it "
            "as it is: empty its data directory and start it with join: true first"
        )
    return _fault(
        f"{view.address} answers, is no member, and has data of its own, of another "
        "cluster or of this one before it was recovered. Do not add it: it can stop "
        "the cluster. Stop it; once nothing that it holds is needed, empty its data "
        "directory, start it with join: true, and add it then"
    )


def _followers(views: Sequence[NodeView], leader: NodeView) -> Iterator[Finding]:
    for undeliverable in leader.undeliverable:
        yield _fault(
            f"{leader.address} cannot deliver {undeliverable}, which answers "
            "heartbeats: see the log there. If it says that a message is too large, "
            "raise limits.max_message_bytes and max_string_bytes in its node.yaml and "
            "start it again; else the way there is too slow for an entry of that size"
        )
    for view in views:
        if view is leader or view.address not in leader.members:
            continue
        behind = leader.commit_index - view.commit_index
        if behind > LAG_ENTRIES:
            yield _fault(
                f"{view.address} lags {behind} entries behind the leader: its disk or "
                "network is too slow, or it was away and catches up; see if that "
                "number falls"
            )
        heard = view.last_contact
        # Told already, from the other side.
        if view.address in leader.silent_peers:
            continue
        if heard is None or heard > CONTACT_SECONDS:
            since = "" if heard is None else f" for {heard:.1f} s"
            yield _fault(
                f"{view.address} has not heard the leader {leader.address}{since}: the "
                "way between their peer addresses is broken"
            )


def _appliers(views: Sequence[NodeView]) -> Iterator[Finding]:
    for view in views:
        waiting = view.commit_index - view.applied_index
        if view.stuck_seconds:
            yield _fault(
                f"the state machine of {view.address} hangs: for "
                f"{view.stuck_seconds:.0f} s it has not finished entry "
                f"{view.applied_index + 1}, and {waiting} committed entries wait. See "
                "what its apply waits for; a restart applies that entry again"
            )
        elif waiting > LAG_ENTRIES:
            yield _warning(
                f"{view.address} has {waiting} committed entries still to apply: it is "
                "catching up, or its CPU is too slow"
            )


def _newest(views: Sequence[NodeView]) -> NodeView:
    """Return the node whose membership counts: the leader, or else the furthest one."""
    return leader_of(views) or max(
        views, key=lambda view: (view.term, view.commit_index)
    )


def _fault(sentence: str) -> Finding:
    return Finding(Severity.FAULT, sentence)


def _warning(sentence: str) -> Finding:
    return Finding(Severity.WARNING, sentence)
