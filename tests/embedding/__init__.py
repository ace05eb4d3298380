"""Tests of `txraft.embedding`."""
