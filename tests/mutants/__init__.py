"""Planted bugs: one-line defects, and the seed, scenario or test that catches each."""
