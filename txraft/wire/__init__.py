"""Turns messages into bytes and back, exactly as hashicorp/raft peers write them.

Nothing here reads a socket or a clock: it is msgpack and the standard library only.
"""
