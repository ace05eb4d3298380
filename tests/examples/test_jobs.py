"""The manual's test of a replicated object."""

from twisted.trial.unittest import SynchronousTestCase

from txraft import CommandFailed, Replicated, command
from txraft.testing import Cluster, SimulatedCluster


class Jobs(Replicated):
    """Hands out each job once at a time."""

    def __init__(self) -> None:
        self.leases: dict[str, float] = {}

    @command
    def claim(self, name: str, seconds: float) -> None:
        if self.leases.get(name, 0.0) > self.context.time:
            raise ValueError(f"{name} is taken")
        self.leases[name] = self.context.time + seconds


class JobsTests(SynchronousTestCase):
    def test_lease_ends(self) -> None:
        """A job can be claimed again once its lease is over, and not before."""
        cluster = Cluster(3, make_fsm=Jobs)
        cluster.start()
        jobs = cluster.replicated(Jobs)

        cluster.result(jobs.claim("a", 5.0))
        cluster.advance(4.0)
        with self.assertRaises(CommandFailed):
            cluster.result(jobs.claim("a", 5.0))
        cluster.advance(1.5)
        cluster.result(jobs.claim("a", 5.0))

    def test_members_are_the_same(self) -> None:
        """Whatever crashes."""
        cluster = SimulatedCluster(Jobs, seed=7)
        cluster.start()
        cluster.storm_on(
            Jobs, 5.0, lambda jobs, random: jobs.claim(random.choice("abc"), 1.0)
        )
