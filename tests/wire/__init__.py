"""Tests of the wire format.

Examples that hypothesis draws have no deadline: a busy machine is no bug.
"""

from hypothesis import settings

settings.register_profile("wire", deadline=None, database=None)
settings.load_profile("wire")
