"""Measures txraft and its peers.

    python -m benchmarks COMMAND [OPTION...]

README.rst beside this file says what each command measures, and how to install each
peer.
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "compare": "commits per second of txraft and its peers",
    "latency": "how long a commit takes",
    "failover": "from the death of a leader to the first commit of another",
    "memory": "memory, restart and catching up with 100 000 entries",
    "http": "requests per second of the HTTP API, and of etcd's",
    "scale": "more members, larger values, followers that lag, snapshots",
    "links": "long links, simulated",
    "heartbeats": "how soon a follower answers heartbeats while it has other work",
    "reads": "what a linearizable read costs when many wait at once",
    "forwarding": "commands and reads on followers, beside the leader's",
    "turns": "the longest turn of the reactor with a million keys",
    "account": "where the processor time of a commit goes",
    "disk": "a synced append, with and without room allocated ahead",
    "store": "one command over a million keys, and what they take in memory",
    "objects": "what a command of a replicated object costs, beside ready bytes",
    "cluster": "txraft alone, with and without TLS",
    "show": "tables of a file that --json wrote",
}


def main() -> None:
    """Run the command that was named."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        print(__doc__)
        for command, what in COMMANDS.items():
            print(f"  {command:11} {what}")
        raise SystemExit(0 if name in ("-h", "--help") else 2)
    import_module(f"benchmarks.{name}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
