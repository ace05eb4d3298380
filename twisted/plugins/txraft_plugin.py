"""Makes `twistd raft` known to Twisted; imports nothing of txraft by itself."""

from twisted.application.service import ServiceMaker

txraft = ServiceMaker(
    "txraft",
    "txraft.daemon.service",
    "A node of a durable, replicated key-value store (Raft).",
    "raft",
)
