"""A test of a state machine in a cluster in memory, as the manual shows it."""

from twisted.trial.unittest import SynchronousTestCase

from examples.counter import Counter
from txraft.testing import Cluster


class CounterTests(SynchronousTestCase):
    def test_count_goes_on_without_the_leader(self) -> None:
        """What was counted is still there when the leader has crashed."""
        cluster = Cluster(3, make_fsm=Counter)
        cluster.start()
        cluster.apply(b"1")

        crashed = cluster.leader.address
        cluster.crash(crashed)
        cluster.wait_for_leader()
        result = cluster.apply(b"1")

        self.assertEqual(result.response, 2)

        cluster.start_node(crashed)
        cluster.wait_for_all()
        values = {node.fsm.value for node in cluster.nodes.values()}
        self.assertEqual(values, {2})
