"""Replicated objects: a class whose commands run on every member of a cluster.

`txraft.Replicated` is the base of such a class, and `objects` tells how it works.
"""
