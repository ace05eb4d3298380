"""A cluster whose wall clock jumps: `python -m pytest tests/wallclock`."""
