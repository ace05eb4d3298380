"""Whole nodes in one process: real codec, files and timers over a simulated world.

Each node is a `Raft` as a user runs it, with its wire protocol on simulated streams,
its log, term, vote and snapshots in files of a simulated disk, and its timers on a
heap. A seed decides everything.
"""
