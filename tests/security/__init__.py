"""Attacks on real nodes over real TLS: each is refused and explained."""
