"""Raft consensus for Twisted."""
