"""Requests to peers and from them: over TCP, or inside one process.

Nothing here decides anything about consensus: it delivers requests to one handler
and fires one Deferred for each call.
"""
