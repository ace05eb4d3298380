"""The counter as a service, which twistd runs in the background and stops in order.

    twistd -ny examples/counter_service.tac

It listens on 127.0.0.1:8400 and keeps its data in ./counter-data. For a cluster, give
each member its own address, and all of them the same `peers`.
"""

from twisted.application.service import Application

from examples.counter import ADDRESS, Counter
from txraft import Node, NodeService

application = Application("counter")
node = Node("counter-data", Counter(), address=ADDRESS)
NodeService(node).setServiceParent(application)
