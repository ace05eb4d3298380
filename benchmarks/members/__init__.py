"""Programs that take part in a benchmark's cluster, each a process of its own.

They take commands as JSON lines on stdin and answer each by one line on stdout, as the
Go programs do: `status`, `load`, `fill`, `commit`.
"""
