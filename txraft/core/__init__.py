"""Consensus as pure data: no bytes, clocks, sockets or threads.

`Consensus` takes inputs and hands out one `Ready` after each batch of them.
"""
