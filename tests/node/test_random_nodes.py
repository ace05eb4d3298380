"""Whole nodes under crashes, partitions, snapshots and membership changes.

A seed decides everything. Afterwards the faults end, and then all state machines are
equal, what was acknowledged is there exactly once and in order, what was refused for
certain is nowhere, and every Deferred has fired once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.raft_cluster import Fates, commands_of
from txraft.core.invariants import check_server
from txraft.errors import RaftError
from txraft.node.events import RaftState
from txraft.node.pending import ApplyResult
from txraft.testing import Cluster, Node
from txraft.testing.cluster import FAST

SEEDS = int(os.environ.get("TXRAFT_SEEDS", "30"))
FIRST_SEED = int(os.environ.get("TXRAFT_FIRST_SEED", "0"))
STEPS = 60
PATIENCE = 30.0
MEMBERS = "abcde"


@dataclass
class Issued:
    """One command and what its caller was told."""

    data: bytes
    node: str
    outcome: list[ApplyResult | Failure] = field(default_factory=list)

    @property
    def is_acknowledged(self) -> bool:
        return bool(self.outcome) and isinstance(self.outcome[0], ApplyResult)

    @property
    def is_certainly_not_applied(self) -> bool:
        [failure] = self.outcome
        if not isinstance(failure, Failure):
            return False
        error = failure.value
        return isinstance(error, RaftError) and error.outcome == "not-applied"


class Chaos:
    """Does *STEPS* random things to a cluster, then lets it recover."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.fates = Fates()
        self.issued: list[Issued] = []
        self.leaders: dict[int, str] = {}
        self.snapshots: list[tuple[Node, list[object]]] = []
        config = replace(
            FAST,
            trailing_logs=self.random.choice([0, 5, 20]),
            max_append_entries=self.random.choice([1, 4, 64]),
            max_append_bytes=self.random.choice([100, 1 << 20]),
            max_tail_bytes=self.random.choice([2000, 8 << 20]),
            protocol_version=self.random.choice([0, 1, 1, 2, 3]),
            pre_vote=self.random.random() < 0.8,
            shutdown_on_remove=False,
        )
        self.cluster = Cluster(
            self.random.choice([1, 3, 3, 5]),
            config,
            seed=seed,
            disk_seconds=self.random.choice([0.0, 0.0, 0.004, 0.02]),
            latency=self.random.choice([0.0, 0.001, 0.01]),
        )

    def run(self) -> None:
        self.cluster.start()
        for _ in range(STEPS):
            self.step()()
            self.cluster.advance(self.random.choice([0, 0, 0.01, 0.05, 0.3]))
            self.check()
        self.recover()

    def step(self) -> Callable[[], None]:
        steps = [
            self.apply,
            self.apply,
            self.apply,
            self.apply,
            self.read,
            self.crash,
            self.crash_some_at_once,
            self.slow_disk,
            self.restart,
            self.partition,
            self.cluster.heal,
            self.snapshot,
            self.change,
            self.transfer,
        ]
        return self.random.choice(steps)

    def check(self) -> None:
        for node in self.cluster.nodes.values():
            if node.raft._shell is not None:
                check_server(node.raft._shell.consensus)
        for node in self.cluster.leaders():
            known = self.leaders.setdefault(node.raft.term, node.address)
            assert known == node.address, f"two leaders in term {node.raft.term}"

    # What happens

    def any_node(self) -> Node | None:
        nodes = list(self.cluster.nodes.values())
        leading = self.cluster.leaders()
        if leading and self.random.random() < 0.8:
            return self.random.choice(leading)
        return self.random.choice(nodes) if nodes else None

    def track(self, deferred: Deferred[object]) -> None:
        self.fates.of(deferred)
        if self.random.random() < 0.05:
            deferred.cancel()

    def apply(self) -> None:
        node = self.any_node()
        if node is None:
            return
        for _ in range(self.random.choice([1, 1, 10, 40])):
            data = b"%d" % len(self.issued)
            issued = Issued(data, node.address)
            self.issued.append(issued)
            issued.outcome = self.fates.of(node.raft.apply(data))

    def read(self) -> None:
        node = self.any_node()
        if node is None:
            return
        before = sum(1 for i in self.issued if i.is_acknowledged)

        def fresh(_: int) -> None:
            count = len(commands_of(node))
            assert count >= before, f"a read went back: {count} of {before}"

        self.track(node.raft.linearizable().addCallback(fresh))
        self.track(node.raft.verify_leader())
        self.track(node.raft.barrier())

    def crash(self) -> None:
        down = len(self.cluster.addresses) - len(self.cluster.nodes)
        if self.cluster.nodes and down < 3:
            self.cluster.crash(self.random.choice(sorted(self.cluster.nodes)))

    def crash_some_at_once(self) -> None:
        """Let the power fail just after a command, for all or a part of the nodes."""
        self.apply()
        self.cluster.advance(self.random.choice([0.005, 0.01, 0.02, 0.04, 0.08]))
        running = sorted(self.cluster.nodes)
        for address in self.random.sample(running, (len(running) + 1) // 2):
            self.cluster.crash(address)
        for address in sorted(set(self.cluster.addresses) - set(self.cluster.nodes)):
            if self.random.random() < 0.6:
                self.cluster.start_node(address)

    def slow_disk(self) -> None:
        """Let one disk be slower than the others, or as fast again."""
        address = self.random.choice(self.cluster.addresses)
        self.cluster.slow_disk(address, self.random.choice([0.0, 0.01, 0.05]))

    def restart(self) -> None:
        down = sorted(set(self.cluster.addresses) - set(self.cluster.nodes))
        if down:
            self.cluster.start_node(self.random.choice(down))
        elif self.cluster.nodes:
            self.cluster.restart(self.random.choice(sorted(self.cluster.nodes)))

    def partition(self) -> None:
        addresses = self.cluster.addresses
        count = self.random.randint(1, max(1, len(addresses) // 2))
        self.cluster.isolate(*self.random.sample(addresses, count))

    def snapshot(self) -> None:
        for node in list(self.cluster.nodes.values()):
            if self.random.random() < 0.6:
                outcome: list[object] = []
                node.raft.snapshot().addBoth(outcome.append)
                self.snapshots.append((node, outcome))

    def change(self) -> None:
        node = self.any_node()
        if node is None:
            return
        address = self.random.choice(MEMBERS)
        if address in node.raft.peers():
            self.track(node.raft.remove_peer(address))
        else:
            if address not in self.cluster.addresses:
                self.cluster.start_node(address)
            self.track(node.raft.add_peer(address))

    def transfer(self) -> None:
        node = self.any_node()
        if node is not None:
            self.track(node.raft.transfer_leadership())

    # Recovery

    def recover(self) -> None:
        cluster = self.cluster
        cluster.heal()
        for address in sorted(set(cluster.addresses) - set(cluster.nodes)):
            cluster.start_node(address)
        cluster.wait_until(self.is_settled, PATIENCE)
        cluster.advance(1.0)
        cluster.wait_until(self.is_settled, PATIENCE)
        cluster.result(cluster.leader.raft.apply(b"last"), PATIENCE)
        cluster.wait_until(self.is_settled, PATIENCE)
        self.check()
        self.check_commands()
        self.check_ends()

    def members(self) -> list[Node]:
        nodes = self.cluster.nodes
        return [nodes[address] for address in self.cluster.leader.raft.peers()]

    def is_settled(self) -> bool:
        if not self.cluster.leaders():
            return False
        last = self.cluster.leader.raft.last_index
        return all(node.raft.applied_index == last for node in self.members())

    def check_commands(self) -> None:
        states = [commands_of(node) for node in self.members()]
        assert all(state == states[0] for state in states), "the replicas differ"
        there = states[0]
        assert len(set(there)) == len(there), "a command was applied twice"
        positions = {data: position for position, data in enumerate(there)}
        for issued in self.issued:
            if not issued.outcome:
                continue
            if issued.is_acknowledged:
                assert issued.data in positions, f"{issued} is lost"
                result = issued.outcome[0]
                assert isinstance(result, ApplyResult)
                assert result.response == positions[issued.data] + 1, issued
            elif issued.is_certainly_not_applied:
                assert issued.data not in positions, f"{issued} was applied"
        order = [positions[i.data] for i in self.issued if i.is_acknowledged]
        assert len(order) == len(set(order))

    def check_ends(self) -> None:
        cluster = self.cluster
        cluster.shutdown()
        cluster.advance(3.0)
        for node in cluster.nodes.values():
            assert node.raft.state is RaftState.SHUTDOWN
        left = cluster.clock.getDelayedCalls()
        assert not left, f"timers are left: {[str(call) for call in left]}"
        assert self.fates.fired == self.fates.handed_out, "a Deferred did not fire"
        for node, outcome in self.snapshots:
            ended_well = node is cluster.nodes[node.address]
            assert outcome or not ended_well, "a snapshot's Deferred did not fire"


class RandomNodes(SynchronousTestCase):
    def test_faults_lose_nothing_and_leave_nobody_waiting(self) -> None:
        """Any schedule of faults, and then all is well again."""
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            try:
                Chaos(seed).run()
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
