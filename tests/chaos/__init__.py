"""Real nodes on a network of their own, in trouble; `python -m tests.chaos`.

`run` is the story: storms of `faults`, between them steps of `operators` and
`directories` with a known end, and then the `verdict` over what `clients` were told.
`node`, `net` and `line` are what it happens to: processes with small disks, a network
in namespaces, and `relay`, a program that connections between peers pass through.
"""
