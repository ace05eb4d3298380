"""Real nodes on a network of their own, killed and cut off; `python -m tests.chaos`."""
