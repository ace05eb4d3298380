"""The process of `twistd raft`: its service, its node, and what it tells systemd."""
