"""The example of a service is an application that twistd can run."""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import IServiceCollection, loadApplication
from twisted.trial.unittest import SynchronousTestCase

from txraft import NodeService

EXAMPLE = Path(__file__).parents[2] / "examples" / "counter_service.tac"


class CounterService(SynchronousTestCase):
    def test_application_has_the_node(self) -> None:
        """It has one service, the node, and nothing is opened before it starts."""
        application = loadApplication(str(EXAMPLE), "python")

        (service,) = IServiceCollection(application)
        self.assertIsInstance(service, NodeService)
        self.assertFalse(service.running)
