"""Consul's clients, as they are, against three nodes: `python -m tests.clients`."""
