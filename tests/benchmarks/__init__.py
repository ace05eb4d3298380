"""Tests of the benchmarks' arithmetic and parsing; measuring is no test."""
