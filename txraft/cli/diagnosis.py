"""What is wrong with a cluster, from what its nodes say: why it has no leader, who
lags, and what to do about it. It asks nobody; `views` has done that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from txraft.cli.views import CANDIDATE, LEADER, View

LAG_ENTRIES = 1000
CONTACT_SECONDS = 2.0


class Severity(Enum):
    """How bad a finding is."""

    FAULT = "fault"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what to do."""

    severity: Severity
    sentence: str


def diagnose(views: Sequence[View]) -> list[Finding]:
    """List what is wrong, the worst first; nothing when all is well."""
    answering = [view for view in views if view.answers]
    found = [*_silent(views)]
    if not answering:
        return found
    leader = leader_of(answering)
    found += _quorum(answering, leader, len(views) - len(answering))
    found += _membership(answering)
    if leader is not None:
        found += _followers(answering, leader)
    found += _appliers(answering)
    found += _strangers(answering)
    found += _versions(answering)
    found += _skips(answering)
    return sorted(found, key=lambda each: each.severity is not Severity.FAULT)


def leader_of(views: Sequence[View]) -> View | None:
    """Return the node that leads: of several that believe so, that of the last term."""
    leaders = [view for view in views if view.answers and view.state == LEADER]
    return max(leaders, key=lambda view: view.term, default=None)


def _strangers(views: Sequence[View]) -> Iterator[Finding]:
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
            f"{', '.join(insecure)} may be reached by peers without TLS, as "
            "insecure_peers is set: whoever reaches the port can destroy the cluster"
        )


def _versions(views: Sequence[View]) -> Iterator[Finding]:
    active = max((view.active_level for view in views), default=0)
    outdated = {peer for view in views for peer in view.outdated_peers}
    outdated |= {view.address for view in views if view.level < active}
    for peer in sorted(outdated):
        yield _fault(
            f"{peer} understands less than level {active} of the state machine, which "
            "the cluster uses: install the version that the others run"
        )
    newest = max((view.level for view in views), default=0)
    older = [view.address for view in views if view.level < newest]
    if newest > active and older:
        yield _warning(
            f"level {newest} of the state machine is not active, as {', '.join(older)} "
            "does not understand it: upgrade every member"
        )


def _skips(views: Sequence[View]) -> Iterator[Finding]:
    """Compare what the members have skipped: it must be the same on all of them."""
    for entry in dict.fromkeys(each for view in views for each in view.skipped):
        skipping = ", ".join(view.address for view in views if entry in view.skipped)
        index, term, digest = entry.split(":")
        for view in views:
            if entry in view.skipped:
                continue
            if view.applied_index < int(index):
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
                    "hand leadership over first"
                )


def _silent(views: Sequence[View]) -> Iterator[Finding]:
    for view in views:
        if view.error is not None:
            yield _fault(
                f"{view.url} does not answer: {view.error}. If its process runs, see "
                "its log; if not, start it"
            )


def _quorum(
    views: Sequence[View], leader: View | None, silent: int
) -> Iterator[Finding]:
    members = _latest_members(views)
    quorum = len(members) // 2 + 1
    heard = {view.address for view in views}
    alive = [address for address in members if address in heard]
    missing = [address for address in members if address not in heard]
    if leader is None:
        yield from _no_leader(views, members, alive, missing, quorum)
    elif len(missing) > silent:
        yield _warning(
            f"not asked: {len(missing) - silent} of {', '.join(missing)}. Name their "
            "HTTP addresses with --http-addr to have them examined"
        )
    rivals = [view for view in views if view.state == LEADER and view is not leader]
    for rival in rivals:
        yield _warning(
            f"{rival.address} believes that it leads term {rival.term}, but a later "
            "term has a leader: it is cut off from the others, and steps down within "
            "its lease"
        )


def _no_leader(
    views: Sequence[View],
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


def _membership(views: Sequence[View]) -> Iterator[Finding]:
    members = _latest_members(views)
    for view in views:
        if members and view.address not in members:
            yield _warning(
                f"{view.address} answers but is no member; add it with `txraft peer "
                f"add {view.address}`, or stop it"
            )
        elif view.members != members:
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


def _followers(views: Sequence[View], leader: View) -> Iterator[Finding]:
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
        if heard is None or heard > CONTACT_SECONDS:
            since = "" if heard is None else f" for {heard:.1f} s"
            yield _fault(
                f"{view.address} has not heard the leader {leader.address}{since}: the "
                "way between their peer addresses is broken"
            )


def _appliers(views: Sequence[View]) -> Iterator[Finding]:
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
                "catching up, or its processor is too slow"
            )


def _latest_members(views: Sequence[View]) -> tuple[str, ...]:
    """Take the membership from who has heard most of it."""
    newest = max(views, key=lambda view: (view.term, view.commit_index))
    return newest.members


def _fault(sentence: str) -> Finding:
    return Finding(Severity.FAULT, sentence)


def _warning(sentence: str) -> Finding:
    return Finding(Severity.WARNING, sentence)
