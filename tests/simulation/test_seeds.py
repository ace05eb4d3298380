"""Seeds of the core simulation, and the campaign that runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txraft.testing.campaign import LEVELS, SeedOutcome, campaign
from txraft.testing.simulation import Simulation
from txraft.testing.simulation.buggify import POINTS
from txraft.testing.simulation.circumstances import FAULT_FREE_EVERY
from txraft.testing.simulation.conversation import Conversation
from txraft.testing.simulation.oracles import Oracles

SEEDS = 70
SEEDS_WITH_LEVELS = (5, 30, 50, 71)
ROOT = Path(__file__).parents[2]


class Seeds(SynchronousTestCase):
    """Storms, and what must follow them."""

    def test_seeds_are_safe_and_recover(self) -> None:
        """Nothing is lost or contradicted; after healing all agree.

        And the storms are storms: each kind of fault is there, often.
        """
        tally: Counter[str] = Counter()
        fired: Counter[str] = Counter()
        operations = 0
        for seed in range(SEEDS):
            simulation = Simulation(seed)
            try:
                simulation.run()
            except AssertionError as error:
                self.fail(f"seed {seed}: {error}")
            tally += simulation.tally
            fired += simulation.buggify.fired
            operations += len(simulation.workload.history)

        self.assertGreater(operations, 50 * SEEDS)
        for fault in ("crashes", "cuts", "pauses", "membership changes"):
            self.assertGreater(tally[fault], SEEDS / 2, fault)
        for fault in ("disks full", "failed syncs", "transfers", "links degraded"):
            self.assertGreater(tally[fault], SEEDS / 20, fault)
        self.assertEqual(set(fired), set(POINTS))

    def test_fault_free_seed_elects_once(self) -> None:
        """Where nothing goes wrong nobody is elected twice."""
        for turn in range(1, 4):
            simulation = Simulation(turn * FAULT_FREE_EVERY - 1)

            simulation.run()

            self.assertEqual(simulation.faults, 0)
            self.assertEqual(simulation.oracles.history.leaderships, 1)

    def test_every_size_is_met(self) -> None:
        """Clusters have one to seven servers, and a third lacks some protection."""
        drawn = [Simulation(seed).circumstances for seed in range(200)]
        unprotected = sum(not circumstances.protected for circumstances in drawn)

        self.assertEqual({len(c.names) for c in drawn}, set(range(1, 8)))
        self.assertGreater(unprotected, 40)


class Upgrades(SynchronousTestCase):
    """Servers come to understand a level one after another, in some of the seeds."""

    def test_level_is_activated_in_storms(self) -> None:
        """All have it from the same entry on, and every member understands it."""
        activations = 0
        for seed in SEEDS_WITH_LEVELS:
            simulation = Simulation(seed)
            simulation.run()
            activations += simulation.oracles.activations

        self.assertGreater(activations, len(SEEDS_WITH_LEVELS))

    def test_members_that_differ_are_found(self) -> None:
        """Two levels after one entry, or a level that a member does not understand."""
        oracles = Oracles()
        oracles.check_level(7, 0)
        oracles.check_level(7, 0)
        oracles.check_activated(1, {"a": 1, "b": 2})

        self.assertRaises(AssertionError, oracles.check_level, 7, 1)
        self.assertRaises(AssertionError, oracles.check_activated, 1, {"a": 1, "b": 0})


class Replays(SynchronousTestCase):
    """A seed that failed can be looked at again."""

    def test_same_seed_same_run(self) -> None:
        """Every line is the same, whatever strings hash to in a process."""
        summary = [self._traced(hash_seed) for hash_seed in ("1", "2")]

        self.assertEqual(summary[0]["fingerprint"], summary[1]["fingerprint"])
        self.assertGreater(summary[0]["events"], 10_000)

    def _traced(self, hash_seed: str) -> dict[str, int]:
        command = ["-m", "txraft.testing", "simulate", "--seeds", "0-7", "--trace"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        summary: dict[str, int] = json.loads(done.stdout)
        return summary

    def test_trace_tells_what_was_said(self) -> None:
        """A conversation names who does what, in words."""
        conversation = Conversation()

        Simulation(0, conversation).run()

        text = "\n".join(conversation.lines)
        for words in ("asks", "vote for term", "heartbeat", "crashes", "append after"):
            self.assertIn(words, text)


class Campaigns(SynchronousTestCase):
    """Many seeds, one line."""

    def test_campaign_counts_and_shows_what_failed(self) -> None:
        """A seed that fails is replayed to its end, with the command to do so."""

        def broken(seed: int, conversation: Conversation | None) -> SeedOutcome:
            if conversation is not None:
                conversation.note(1_500_000, "a", "falls over")
            finding = "it broke" if seed == 2 else None
            return SeedOutcome(seed, 10, 1, 20.0, 5, 0, 7, finding)

        LEVELS["broken"] = broken
        self.addCleanup(LEVELS.pop, "broken")
        written: list[str] = []

        summary = campaign("broken", range(4), written.append)

        self.assertEqual((summary.seeds, summary.failed_seeds), (4, [2]))
        text = "".join(written)
        self.assertIn("   1.500000  a  falls over\nseed 2: it broke\n", text)
        self.assertIn("simulate --level broken --seeds 2-2 --talk", text)
        self.assertEqual(json.loads(summary.line())["operations_checked"], 20)
