"""The replicated key-value state machine: commands, state and snapshots.

Four things here show the state of one moment while commands go on:

    read view  `keyindex`: the keys under one prefix, for a long list over HTTP
    capture    `capture`: all records, for a thread that writes a snapshot or a backup
    snapshot   `snapshot`: the whole state as a stream of bytes, which Raft stores
    backup     `backup`: an archive with such a snapshot, for an operator to keep
"""
