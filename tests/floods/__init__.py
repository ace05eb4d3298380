"""Floods: what a node costs and does while somebody wastes all it can be asked for.

`python -m tests.floods` runs them against a cluster of real processes; they are no
part of the suite.
"""
