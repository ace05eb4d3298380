"""One run of whole nodes: what a seed decides, from the first start to the last check.

As in the core simulation, a storm is followed by calm, in which there must be a
leader, progress and one state everywhere; then outcomes and histories are checked,
and every node shuts down and leaves nothing behind.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, cast
from zlib import crc32

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from txraft.config import Config
from txraft.testing.fullstack.machine import KINDS
from txraft.testing.fullstack.node import Life, Machine
from txraft.testing.fullstack.storm import POINTS, FullStorm
from txraft.testing.fullstack.streams import Streams
from txraft.testing.fullstack.workload import FullWorkload
from txraft.testing.linearizability import Kind, check
from txraft.testing.schedule import Schedule
from txraft.testing.simulation.buggify import Buggify
from txraft.testing.simulation.circumstances import Circumstances, draw
from txraft.testing.simulation.network import Link, Network
from txraft.testing.simulation.oracles import Oracles
from txraft.testing.simulation.workload import PATIENCE, Waiting

if TYPE_CHECKING:
    from txraft.testing.simulation.conversation import Conversation

STORM = 20_000_000
"""Microseconds of faults in every run."""

RECOVERY = {True: 40_000_000, False: 100_000_000}
"""Microseconds for a cluster to recover after the storm, with pre-vote and without."""

MIXES = ((0,), (1,), (1,), (2,), (3,), (3,), (0, 1), (1, 2), (2, 3))
"""Protocol versions of the nodes of one cluster: neighbours understand each other."""

CLOSING = 5_000_000
"""Microseconds for all nodes to shut down."""


class FullSimulation:
    """The run of *seed*; a *conversation* writes down what happens."""

    def __init__(self, seed: int, conversation: Conversation | None = None) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.circumstances = _possible(draw(seed, random), random)
        self.config = self._draw_config()
        # From a stream of its own, so that most seeds are what they were.
        rate = Random(f"cut logs, {seed}").choice((0.0, 0.0, 0.3))
        self.cut_logs = 0.0 if self.circumstances.fault_free else rate
        self.schedule = Schedule()
        self.tally: Counter[str] = Counter()
        self.calm = self.ended = False
        self.undecided = 0
        self._conversation = conversation
        self._findings: list[str] = []
        self._votes: dict[tuple[str, int], str] = {}
        self.oracles = Oracles()
        self.buggify = Buggify(random, self.circumstances.armed, POINTS)
        self.versions = random.choice(MIXES)
        self.make_fsm = random.choice(KINDS)
        names = self.circumstances.names
        self.network = Network(self.schedule, random, names, self._link, self.tally)
        self._in_crumbs = random.random() < 0.3
        self.streams = Streams(
            self.schedule,
            self.network,
            random,
            lambda: self._in_crumbs and random.random() < 0.1,
        )
        self.storm = FullStorm(self)
        self.workload = FullWorkload(self)
        founders = list(names[: self.circumstances.founders])
        self.machines = {
            name: Machine(self, name, founders if name in founders else [])
            for name in names
        }

    def _draw_config(self) -> Config:
        random, circumstances = self.random, self.circumstances
        return Config(
            commit_timeout=0.1,
            max_append_entries=circumstances.options.max_append_entries,
            max_inflight_requests=circumstances.options.max_inflight_requests,
            max_append_bytes=random.choice((100, 1 << 20)),
            max_tail_bytes=random.choice((300, 8 << 20)),
            snapshot_interval=random.choice((0.3, 3.0)),
            snapshot_threshold=min(circumstances.snapshot_threshold, 1 << 30),
            trailing_logs=circumstances.trailing,
            pre_vote=circumstances.options.pre_vote,
            shutdown_on_remove=False,
        )

    def _link(self) -> Link:
        circumstances = self.circumstances
        return Link(
            longest_delay=circumstances.longest_delay // 2,
            loss=circumstances.loss / 5,
            tail=circumstances.tail / 5,
            in_order=True,
        )

    @property
    def lives(self) -> list[Life]:
        """The nodes that take part."""
        return [m.running for m in self.machines.values() if m.running is not None]

    @property
    def leaders(self) -> list[Life]:
        """The nodes that take themselves for the leader."""
        return [life for life in self.lives if _leads(life)]

    @property
    def faults(self) -> int:
        """How many faults of any kind there were."""
        operated = ("membership changes", "transfers")
        counted = sum(n for name, n in self.tally.items() if name not in operated)
        return counted + self.buggify.faults

    @property
    def fingerprint(self) -> int:
        """A number that two different runs hardly share."""
        states = [life.fsm.state.digest for life in self.lives]
        parts = (
            self.schedule.events,
            self.schedule.now,
            self.random.random(),
            self.streams.bytes,
            states,
        )
        return crc32(repr(parts).encode())

    def note(self, machine: Machine | None, event: str, *about: object) -> None:
        """Write down what happens, if somebody reads it."""
        if self._conversation is not None:
            who = machine.address if machine is not None else "*"
            self._conversation.note(self.schedule.now, who, event, about)

    # Findings -------------------------------------------------------------------

    def found(self, finding: str) -> None:
        """Fail this run, as soon as nothing is in between that could hide it."""
        self.note(None, f"finds that {finding}")
        self._findings.append(finding)

    def found_failure(self, failure: Failure) -> None:
        """Fail this run with what nobody expected."""
        self.found(f"{failure.type}: {failure.getErrorMessage()}")

    def raise_findings(self) -> None:
        """Raise AssertionError with the first finding, if there is one."""
        if self._findings:
            raise AssertionError(self._findings[0])

    def one_vote(self, address: str, term: int, candidate: str) -> None:
        """Assert that nobody votes twice in a term, in no two lives."""
        known = self._votes.setdefault((address, term), candidate)
        assert known == candidate, (
            f"{address} voted for {known} and {candidate} in term {term}"
        )

    def _observe(self, event: LogEvent) -> None:
        """Find what was only logged, by Twisted itself."""
        failure = event.get("log_failure")
        if failure is not None and event.get("log_namespace", "").startswith("twisted"):
            self.found(f"nobody heard of {failure.value!r}")

    # The phases -----------------------------------------------------------------

    def run(self) -> None:
        """Live through the storm, heal, and demand what must follow.

        Raises: AssertionError, if anything is wrong.
        """
        observer = cast(ILogObserver, self._observe)
        globalLogPublisher.addObserver(observer)
        try:
            self._run()
        finally:
            globalLogPublisher.removeObserver(observer)

    def _run(self) -> None:
        for machine in self.machines.values():
            machine.start()
        self.workload.start()
        self.schedule.after(0, self.storm.step)
        self.schedule.run_until(STORM)
        self._heal()
        self._demand_recovery()
        if self.circumstances.protected:
            self._demand_stability()
        self.ended = True
        self.workload_ends()
        self._shut_down()
        self.raise_findings()
        if self.circumstances.fault_free:
            elections = self.oracles.history.leaderships
            assert elections == 1, f"{elections} elections where nothing went wrong"

    def _heal(self) -> None:
        """End all faults and start what is down."""
        self.note(None, "ends the storm")
        self.calm = self.ended = self.buggify.calm = True
        self._in_crumbs = False
        self.network.calm(10_000)
        self.circumstances.disk_delays = (100, 2_000)
        for machine in self.machines.values():
            if machine.damage is not None and machine.life is not None:
                machine.crash(power_off=False)
            machine.repair()
            machine.start()
            if machine.life is not None:
                machine.resume(machine.life)
        self._let(PATIENCE)

    def _demand_recovery(self) -> None:
        """Demand a leader, a write of its own, and one state everywhere."""
        patience = RECOVERY[self.config.pre_vote]
        deadline = self.schedule.now + patience
        while not self._converged(self._write_one()):
            assert self.schedule.now < deadline, (
                "no leader, progress and agreement after healing"
            )

    def _write_one(self) -> Waiting | None:
        leaders = self.leaders
        best = max(leaders, key=_term, default=None)
        waiting = self.workload.ask(best, Kind.WRITE, "x") if best else None
        self._let(1_200_000)
        return waiting

    def _let(self, time: int) -> None:
        self.schedule.run_until(self.schedule.now + time)
        self.raise_findings()

    def _converged(self, waiting: Waiting | None) -> bool:
        """Tell whether a write was done and all members are equal."""
        leader = max(self.leaders, key=_term, default=None)
        if leader is None or waiting is None or not waiting.operation.is_known:
            return False
        consensus = leader.consensus
        assert consensus is not None, "it leads"
        if not consensus.configuration.is_voter(leader.machine.address):
            return False
        members = [self.machines[a].running for a in consensus.configuration.addresses]
        states = {
            (m.fsm.state.index, m.fsm.state.digest) if m is not None else None
            for m in members
        }
        return states == {(leader.fsm.state.index, leader.fsm.state.digest)}

    def _demand_stability(self) -> None:
        """Demand that the leader now in office stays there."""
        leader = max(self.leaders, key=_term)
        term = _term(leader)
        self._let(int(5 * self.config.election_timeout * 1_000_000))
        assert _leads(leader), "a leader that all can hear stays leader"
        assert _term(leader) == term, "terms do not grow while all is well"

    def workload_ends(self) -> None:
        """Hold what clients were told against what was committed."""
        workload = self.workload
        self.oracles.check_outcomes(workload.acknowledged, workload.refused)
        self.undecided = check(workload.history)

    def _shut_down(self) -> None:
        """Shut all nodes down, and demand that nothing is left of them."""
        lives = self.lives
        closed: list[Life] = []
        for life in lives:
            assert life.raft is not None, "it takes part"
            life.raft.shutdown().addCallback(partial(_close, life, closed))
        self._let(CLOSING)
        for life in lives:
            address = life.machine.address
            assert life in closed, f"{address} did not shut down"
            life.close()
            left = +life.promises
            assert not left, f"Deferreds of {address} did not fire: {dict(left)}"
            timers = [str(call) for call in life.clock.getDelayedCalls()]
            assert not timers, f"timers of {address} are left: {timers}"
            assert not life.host.ends, f"connections of {address} are left"
            files = life.disk.open_files
            assert not files, f"{files} files of {address} are left open"


def _close(life: Life, closed: list[Life], _: None) -> None:
    closed.append(life)


def _leads(life: Life) -> bool:
    return life.consensus is not None and life.consensus.is_leader


def _term(life: Life) -> int:
    return life.consensus.term if life.consensus is not None else 0


def _possible(circumstances: Circumstances, random: Random) -> Circumstances:
    """Leave out what the timeouts of a real node are not made for; add damage."""
    rate = random.choice((0.0, 0.0, 0.2))
    return replace(
        circumstances,
        longest_delay=min(circumstances.longest_delay, 200_000),
        damage_rate=0.0 if circumstances.fault_free else rate,
    )
