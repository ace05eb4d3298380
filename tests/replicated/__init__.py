"""Replicated objects: their state, their commands and their snapshots."""
