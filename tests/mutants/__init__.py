"""Planted bugs: small defects, and the seed or test that catches each.

To add one, put an entry into the file of its subject (`consensus`, `roles`, ...):

    Mutant(
        name="a candidate's own vote counts before it is durable",
        at="Candidate.synced",
        old="consensus.state_is_durable",
        new="True",
        caught_by="tests.core.test_candidate.OwnVote.test_synced_of_an_earlier_write_does_not_count",
    ),

`at` is the qualified name of a function, class or constant, "cli/log:main" only where
several have the name. `old` and `new` are an expression each, or statements in a row:
as little as fits once there, since whoever changes that code changes the entry. Local
names may be called otherwise than in the code, `...` stands for any expression or block;
`tests.mutants.syntax` has the rules. `new` may use names of `old`, globals of the module
and builtins. Then

    python -m tests.mutants --only "own vote counts"
    python -m tests.mutants --table > docs/reference/planted-bugs.rst

A test that fails because planted code stumbles over a name, an attribute or an import
catches nothing: such code would fail whatever is tested.
"""
