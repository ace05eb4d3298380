"""A simulation of whole nodes: one seed decides the machines, faults and clients.

As in the core simulation, there are faults first and then none. Then the cluster must
have a leader, commit a write and be in one state everywhere, and the outcomes and the
history of its clients are checked. Last, every node shuts down and must leave no timer,
connection or open file behind.
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
from txraft.testing.fullstack.faults import POINTS, NodeFaults
from txraft.testing.fullstack.node import SimulatedMachine, SimulatedNode
from txraft.testing.fullstack.register_fsm import KINDS
from txraft.testing.fullstack.streams import Streams
from txraft.testing.fullstack.workload import (
    FORWARDED_COMMANDS,
    FORWARDED_READS,
    FullWorkload,
)
from txraft.testing.linearizability import ClientOperationKind, check
from txraft.testing.schedule import Schedule
from txraft.testing.simulation.buggify import Buggify
from txraft.testing.simulation.circumstances import Circumstances, draw
from txraft.testing.simulation.network import DirectedLink, Network
from txraft.testing.simulation.oracles import Oracles
from txraft.testing.simulation.workload import PATIENCE, Waiting

if TYPE_CHECKING:
    from txraft.testing.simulation.conversation import Conversation

FAULT_MICROSECONDS = 20_000_000
"""Time with faults in every run."""

RECOVERY = {True: 40_000_000, False: 100_000_000}
"""Microseconds that a cluster has to recover, with pre-vote and without."""

MIXES = ((0,), (1,), (1,), (2,), (3,), (3,), (0, 1), (1, 2), (2, 3))
"""Protocol versions in one cluster; versions next to each other work together."""

NO_FAULTS = {
    "membership changes",
    "transfers",
    FORWARDED_COMMANDS,
    FORWARDED_READS,
}
"""What is counted in a run beside faults."""

FORWARDING = 0.6
"""The chance that clients of a run ask any member, by way of its `Forwarder`."""

CLOSING = 5_000_000
"""Microseconds that all nodes have to shut down."""


class FullSimulation:
    """The run that *seed* makes; *conversation* records its events."""

    def __init__(self, seed: int, conversation: Conversation | None = None) -> None:
        self.seed = seed
        # The one source of chance, as in the core simulation: one draw more, or another
        # order, changes the runs of all seeds.
        self.random = random = Random(seed)
        self.circumstances = _possible(draw(seed, random), random)
        self.config = self._draw_config()
        # From a stream of its own, so that most seeds are what they were.
        rate = Random(f"cut logs, {seed}").choice((0.0, 0.0, 0.3))
        self.cut_logs = 0.0 if self.circumstances.fault_free else rate
        self.forwards = Random(f"forwarding, {seed}").random() < FORWARDING
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
        self.fault_schedule = NodeFaults(self)
        self.workload = FullWorkload(self)
        bootstrap_peers = list(names[: self.circumstances.bootstrap_size])
        self.machines = {
            name: SimulatedMachine(
                self, name, bootstrap_peers if name in bootstrap_peers else []
            )
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

    def _link(self) -> DirectedLink:
        circumstances = self.circumstances
        return DirectedLink(
            longest_delay=circumstances.longest_delay // 2,
            loss=circumstances.loss / 5,
            tail=circumstances.tail / 5,
            in_order=True,
        )

    @property
    def nodes(self) -> list[SimulatedNode]:
        """The nodes that take part."""
        return [m.running for m in self.machines.values() if m.running is not None]

    @property
    def leaders(self) -> list[SimulatedNode]:
        """The nodes that are leaders, each in its own opinion."""
        return [node for node in self.nodes if _leads(node)]

    @property
    def faults(self) -> int:
        """The number of faults of all kinds; what operators and clients do is none."""
        counted = sum(n for name, n in self.tally.items() if name not in NO_FAULTS)
        return counted + self.buggify.faults

    @property
    def fingerprint(self) -> int:
        """A checksum of the run: two different runs hardly have the same."""
        states = [node.fsm.state.digest for node in self.nodes]
        parts = (
            self.schedule.events,
            self.schedule.now,
            self.random.random(),
            self.streams.bytes,
            states,
        )
        return crc32(repr(parts).encode())

    def note(
        self, machine: SimulatedMachine | None, event: str, *about: object
    ) -> None:
        """Record an event, if there is a conversation."""
        if self._conversation is not None:
            who = machine.address if machine is not None else "*"
            self._conversation.note(self.schedule.now, who, event, about)

    # Findings -------------------------------------------------------------------

    def found(self, finding: str) -> None:
        """Let this run fail with *finding*.

        It is raised later, outside of callbacks: a Deferred would swallow it here.
        """
        self.note(None, f"finds that {finding}")
        self._findings.append(finding)

    def found_failure(self, failure: Failure) -> None:
        """Let this run fail with an error that no code expected."""
        self.found(f"{failure.type}: {failure.getErrorMessage()}")

    def raise_findings(self) -> None:
        """Raise AssertionError with the first finding, if there is one."""
        if self._findings:
            raise AssertionError(self._findings[0])

    def one_vote(self, address: str, term: int, candidate: str) -> None:
        """Assert that *address* has one vote in a term, also across restarts."""
        known = self._votes.setdefault((address, term), candidate)
        assert known == candidate, (
            f"{address} voted for {known} and {candidate} in term {term}"
        )

    def _observe(self, event: LogEvent) -> None:
        """Let the run fail with an error that Twisted only logged."""
        failure = event.get("log_failure")
        if failure is not None and event.get("log_namespace", "").startswith("twisted"):
            self.found(f"nobody heard of {failure.value!r}")

    # The phases -----------------------------------------------------------------

    def run(self) -> None:
        """Run with faults, then without; check that the cluster recovers.

        Raises: AssertionError, with the first thing that is wrong.
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
        self.schedule.after(0, self.fault_schedule.step)
        self.schedule.run_until(FAULT_MICROSECONDS)
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
        """End all faults, repair damage, and start the nodes that are down."""
        self.note(None, "ends all faults")
        # Calm first: a start below must not meet another fault.
        self.calm = self.ended = self.buggify.calm = True
        self._in_crumbs = False
        self.network.calm(10_000)
        self.circumstances.disk_delays = (100, 2_000)
        for machine in self.machines.values():
            if machine.damage is not None and machine.node is not None:
                machine.crash(power_off=False)
            # Repair comes before the start: a node refuses to start on damage.
            machine.repair()
            machine.start()
            if machine.node is not None:
                machine.resume(machine.node)
        self._let(PATIENCE)

    def _demand_recovery(self) -> None:
        """Check that soon a leader commits a write and all members have one state."""
        patience = RECOVERY[self.config.pre_vote]
        deadline = self.schedule.now + patience
        while not self._converged(self._write_one()):
            assert self.schedule.now < deadline, (
                "no leader, progress and agreement after healing"
            )

    def _write_one(self) -> Waiting | None:
        leaders = self.leaders
        best = max(leaders, key=_term, default=None)
        waiting = (
            self.workload.ask(best, ClientOperationKind.WRITE, "x") if best else None
        )
        self._let(1_200_000)
        return waiting

    def _let(self, time: int) -> None:
        self.schedule.run_until(self.schedule.now + time)
        self.raise_findings()

    def _converged(self, waiting: Waiting | None) -> bool:
        """Tell whether the write took effect and all members have the same state."""
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
        """Check that the leader stays leader and its term does not change."""
        leader = max(self.leaders, key=_term)
        term = _term(leader)
        self._let(int(5 * self.config.election_timeout * 1_000_000))
        assert _leads(leader), "a leader that all can hear stays leader"
        assert _term(leader) == term, "terms do not grow while all is well"

    def workload_ends(self) -> None:
        """Compare the outcomes that clients were told with what was committed."""
        workload = self.workload
        self.oracles.check_outcomes(workload.acknowledged, workload.refused)
        self.undecided = check(workload.history)

    def _shut_down(self) -> None:
        """Shut all nodes down, and check that they leave nothing behind."""
        nodes = self.nodes
        closed: list[SimulatedNode] = []
        for node in nodes:
            assert node.raft is not None, "it takes part"
            node.raft.shutdown().addCallback(partial(_close, node, closed))
        self._let(CLOSING)
        for node in nodes:
            address = node.machine.address
            assert node in closed, f"{address} did not shut down"
            node.close()
            left = +node.promises
            assert not left, f"Deferreds of {address} did not fire: {dict(left)}"
            timers = [str(call) for call in node.clock.getDelayedCalls()]
            assert not timers, f"timers of {address} are left: {timers}"
            assert not node.host.ends, f"connections of {address} are left"
            files = node.disk.open_files
            assert not files, f"{files} files of {address} are left open"


def _close(node: SimulatedNode, closed: list[SimulatedNode], _: None) -> None:
    closed.append(node)


def _leads(node: SimulatedNode) -> bool:
    return node.consensus is not None and node.consensus.is_leader


def _term(node: SimulatedNode) -> int:
    return node.consensus.term if node.consensus is not None else 0


def _possible(circumstances: Circumstances, random: Random) -> Circumstances:
    """Limit delays to what a node's timeouts are made for, and add damage."""
    rate = random.choice((0.0, 0.0, 0.2))
    return replace(
        circumstances,
        longest_delay=min(circumstances.longest_delay, 200_000),
        damage_rate=0.0 if circumstances.fault_free else rate,
    )
