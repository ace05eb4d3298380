"""The core simulation: clusters of `Consensus` objects, and all chance from one seed.

A `Simulation` is the whole of one run: servers with a disk each, the network between
them, clients, faults, and checks after every event. No wall clock is read
and every choice is drawn from the seed's `random.Random`, so a seed always makes the
same run.
"""

from txraft.testing.simulation.simulation import Simulation

__all__ = ["Simulation"]
