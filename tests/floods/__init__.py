"""Floods: measures a node while somebody wastes all that it can be asked for.

`python -m tests.floods` runs them against a cluster of real processes; they are no
part of the suite.
"""
