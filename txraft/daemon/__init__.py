"""The process of `twistd raft`: its service, its node, signals and systemd."""
