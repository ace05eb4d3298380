"""Attacks on real nodes over real TLS: what is refused, and what is said of it."""
