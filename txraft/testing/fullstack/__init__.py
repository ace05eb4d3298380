"""The simulation of whole nodes: real codec, files and timers in a simulated world.

Each node is a `Raft` as a user runs it, with its wire protocol on simulated streams,
its log, term, vote and snapshots in files of a simulated disk, and its timers on a
heap. A seed decides everything.
"""
