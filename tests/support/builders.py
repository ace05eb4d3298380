"""Build servers of the core, their logs and messages in one short line each."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TypeVar

from txraft.core.configuration import Configuration, ConfigurationHistory
from txraft.core.consensus import Consensus
from txraft.core.entry import Entry, LogType
from txraft.core.leader import Leader
from txraft.core.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from txraft.core.options import CoreOptions
from txraft.core.progress import Progress
from txraft.core.ready import (
    HardState,
    Heartbeat,
    Ready,
    Replicate,
    SnapshotMark,
)
from txraft.core.term_index import TermIndex

T = TypeVar("T")

OPTIONS: dict[str, int | bool] = {
    "heartbeat_timeout_ticks": 10,
    "election_timeout_ticks": 10,
    "heartbeat_interval_ticks": 2,
    "commit_interval_ticks": 1,
    "lease_ticks": 8,
    "pre_vote": True,
    "tags_cluster": False,
}


def log_of(*terms: int, base: tuple[int, int] = (0, 0)) -> TermIndex:
    """Make a log with one entry of each of *terms*, after *base*."""
    log = TermIndex(base_index=base[0], base_term=base[1])
    for term in terms:
        log.append(term)
    return log


def terms_of(server: Consensus) -> list[int | None]:
    """List the terms of the entries that *server* has."""
    log = server.log
    return [log.term_at(i) for i in range(log.first_index, log.last_index + 1)]


def entries_of(first: int, *terms: int) -> list[Entry]:
    """Make commands from index *first* on."""
    return [
        Entry(index, term, LogType.COMMAND, b"%d.%d" % (index, term))
        for index, term in enumerate(terms, first)
    ]


def command() -> Entry:
    """Make a command that no leader has accepted yet."""
    return Entry(0, 0, LogType.COMMAND, b"x")


def membership(*voters: str) -> Entry:
    """Make the entry that asserts *voters* as the whole membership."""
    return Entry(
        0, 0, LogType.CONFIGURATION, configuration=Configuration.of_voters(voters)
    )


def server(
    address: str = "a",
    log: TermIndex | None = None,
    term: int = 0,
    voted_for: str | None = None,
    voters: Iterable[str] = "abc",
    configuration: Configuration | None = None,
    snapshot: SnapshotMark | None = None,
    history: ConfigurationHistory | None = None,
    seed: int = 0,
    **options: int | bool,
) -> Consensus:
    """Start a server with that state on its disk, all of its log in memory."""
    members = configuration or Configuration.of_voters(voters)
    if snapshot is not None:
        members = snapshot.configuration
    made = snapshot.configuration_index if snapshot else 0
    consensus = Consensus(
        address,
        Random(seed),
        CoreOptions(**{**OPTIONS, **options}),  # type: ignore[arg-type]
        HardState(term, voted_for),
        log,
        history or ConfigurationHistory(made, members),
        snapshot,
    )
    consensus.resident_from = 1
    return consensus


def candidate(term: int = 1, **state: object) -> Consensus:
    """Start a server that campaigns in *term* and has not yet been synced."""
    consensus = server(term=term - 1, **state)  # type: ignore[arg-type]
    consensus.become_candidate()
    return consensus


def leader(term: int = 1, **state: object) -> Consensus:
    """Start a server that has just been elected in *term*; nothing has left it."""
    consensus = candidate(term, **state)
    sync(consensus)
    for voter in consensus.configuration.voters:
        if not consensus.is_leader:
            give_vote(consensus, voter)
    assert consensus.is_leader, "it has all votes"
    return consensus


def settled_leader(term: int = 1, **state: object) -> Consensus:
    """Start a leader whose opening entry all others have and know to be committed."""
    consensus = leader(term, **state)
    settle(consensus)
    assert consensus.commit_index == consensus.log.last_index
    return consensus


def settle(consensus: Consensus, *silent: str, ticks: int = 4) -> None:
    """Let *ticks* pass, syncing and answering all but what is for *silent* ones."""
    answer_all(consensus, *silent)
    for _ in range(ticks):
        consensus.tick()
        answer_all(consensus, *silent)


def answer_all(consensus: Consensus, *silent: str) -> None:
    """Sync and answer with success until *consensus* has nothing more to say."""
    busy = True
    while busy:
        ready = sync(consensus)
        heard = [(to, m) for to, m in ready.send if to not in silent]
        busy = bool(heard) or ready.has_write
        for to, message in heard:
            if isinstance(message, Replicate | Heartbeat):
                accept(consensus, str(to), message)


def give_vote(consensus: Consensus, voter: str) -> None:
    """Deliver *voter*'s vote for the term in which *consensus* campaigns."""
    request = RequestVoteRequest(consensus.term, consensus.address, 0, 0)
    consensus.response(voter, request, RequestVoteResponse(consensus.term, True))


def sync(consensus: Consensus) -> Ready:
    """Take what is ready and report its write durable."""
    ready = consensus.ready()
    consensus.synced(ready.write_number)
    return ready


def accept(consensus: Consensus, peer: str, request: Replicate | Heartbeat) -> None:
    """Deliver *peer*'s success answer."""
    consensus.response(peer, request, AppendEntriesResponse(consensus.term, 0, True))


def refuse(
    consensus: Consensus,
    peer: str,
    request: Replicate,
    last_log: int,
    at_once: bool = True,
) -> None:
    """Deliver *peer*'s answer that the previous entry did not match."""
    answer = AppendEntriesResponse(consensus.term, last_log, False, at_once)
    consensus.response(peer, request, answer)


def append(
    term: int,
    prev: tuple[int, int] = (0, 0),
    terms: Iterable[int] = (),
    commit: int = 0,
    sender: str = "b",
) -> AppendEntriesRequest:
    """Make the request that follows on *prev*, an (index, term)."""
    entries = entries_of(prev[0] + 1, *terms)
    return AppendEntriesRequest(term, sender, *prev, entries, commit)


def request_vote(
    term: int, last: tuple[int, int] = (0, 0), sender: str = "b", transfer: bool = False
) -> RequestVoteRequest:
    """Make a vote request of a candidate whose log ends with *last*, (index, term)."""
    return RequestVoteRequest(term, sender, *last, transfer)


def sent(ready: Ready, kind: type[T], to: object = None) -> list[T]:
    """List what *ready* lets leave at once, of one *kind*, to *to* or anyone."""
    return [
        message
        for destination, message in ready.send
        if isinstance(message, kind) and to in (None, destination)
    ]


def answer_of(ready: Ready) -> object:
    """Return the only answer in *ready*, wherever it stands."""
    answers = [m for to, m in (*ready.send, *ready.after_sync) if to == "reply"]
    assert len(answers) == 1, f"one answer to one request, not {answers}"
    return answers[0]


def progress(consensus: Consensus, peer: str) -> Progress:
    """Return what the leader *consensus* knows of *peer*."""
    assert isinstance(consensus.role, Leader)
    return consensus.role.followers[peer]
