"""X: timers and lists, as hashicorp/raft's own suite exercises them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.builders import server
from txraft import (
    Config,
    ConfigError,
    RaftState,
    add_unique_peer,
    decode_peer,
    encode_peer,
    exclude_peer,
    peer_contained,
    validate_config,
)
from txraft.core.consensus import Consensus
from txraft.core.follower import Follower
from txraft.wire.membership import decode_peers, encode_peers

TIMEOUT = 50


def ticks_until_it_campaigns(consensus: Consensus) -> int:
    """Count the ticks that a follower waits."""
    ticks = 0
    while isinstance(consensus.role, Follower):
        consensus.tick()
        ticks += 1
    return ticks


class Timers(SynchronousTestCase):
    def test_random_timeout(self) -> None:
        """X01: a timer fires within once and twice its time, and not always alike."""
        drawn = [
            ticks_until_it_campaigns(
                server(seed=seed, heartbeat_timeout_ticks=TIMEOUT, pre_vote=False)
            )
            for seed in range(200)
        ]

        self.assertGreaterEqual(min(drawn), TIMEOUT)
        self.assertLessEqual(max(drawn), 2 * TIMEOUT)
        self.assertGreater(len(set(drawn)), TIMEOUT // 2)


class Lists(SynchronousTestCase):
    def test_exclude_peer(self) -> None:
        """X07: the peer is left out."""
        self.assertEqual(exclude_peer(["a", "b", "c"], "b"), ["a", "c"])

    def test_peer_contained(self) -> None:
        """X08: a peer is found, another is not."""
        self.assertTrue(peer_contained(["a", "b"], "b"))
        self.assertFalse(peer_contained(["a", "b"], "d"))

    def test_add_unique_peer(self) -> None:
        """X09: a peer is added once."""
        self.assertEqual(add_unique_peer(["a"], "b"), ["a", "b"])
        self.assertEqual(add_unique_peer(["a", "b"], "b"), ["a", "b"])

    def test_encode_and_decode_peers(self) -> None:
        """X10: a list comes back, and so does each of its peers."""
        peers = ("10.0.0.1:8300", "10.0.0.2:8300")

        self.assertEqual(decode_peers(encode_peers(peers)), peers)
        self.assertEqual(tuple(decode_peer(encode_peer(p)) for p in peers), peers)


class States(SynchronousTestCase):
    def test_names_and_numbers(self) -> None:
        """A10: the numbers and names of the states."""
        told = [(int(state), str(state)) for state in RaftState]
        self.assertEqual(
            told,
            [(0, "Follower"), (1, "Candidate"), (2, "Leader"), (3, "Shutdown")],
        )


class Validation(SynchronousTestCase):
    def test_every_rule(self) -> None:
        """A1: each rule of hashicorp/raft refuses by itself, naming the field."""
        for fields, named in (
            ({"heartbeat_timeout": 0.004, "leader_lease_timeout": 0.005}, "heartbeat"),
            ({"election_timeout": 0.004}, "election_timeout"),
            ({"commit_timeout": 0.0009}, "commit_timeout"),
            ({"max_append_entries": 0}, "max_append_entries"),
            ({"max_append_entries": 1025}, "max_append_entries"),
            ({"snapshot_interval": 0.004}, "snapshot_interval"),
            ({"leader_lease_timeout": 0.004}, "leader_lease_timeout"),
            ({"leader_lease_timeout": 1.1}, "leader_lease_timeout"),
            ({"election_timeout": 0.9}, "election_timeout"),
        ):
            error = self.assertRaises(ConfigError, validate_config, Config(**fields))
            self.assertIn(named, str(error))

    def test_every_fault_at_once(self) -> None:
        """A1: hashicorp/raft names the first fault; ours all of them."""
        config = Config(commit_timeout=0.0, max_append_entries=0, snapshot_interval=0)

        error = self.assertRaises(ConfigError, validate_config, config)

        self.assertEqual(len(error.problems), 3)
