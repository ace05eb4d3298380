"""Bytes to messages and back, exactly as hashicorp/raft peers write them.

Pure: msgpack and the standard library. Nothing here reads a socket or a clock.
"""
