"""The `txraft` command line: each module holds the commands of one subject."""
