"""The replicated key-value state machine: commands, state and snapshots."""
