"""Anything at all, given to whatever reads bytes from outside.

`python -m tests.fuzz` is the longer job.
"""
