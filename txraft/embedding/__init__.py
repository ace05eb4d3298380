"""Embedding: a whole member of a cluster inside somebody's program."""
