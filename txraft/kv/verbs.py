"""The table of verbs: every operation that a transaction can hold.

A row has the number of the verb in the log, its name in the API, and its traits. All
other code asks this table: the decoder, the quotas, the HTTP API and the client. The
function that does a verb names it with `does`, in `txraft.kv.operations`.

A new verb is a row here, its function there, and their tests; the client may have a
constructor for it, in `txraft.client.results`. Members of an older release do not know
the verb, so it also needs a new command version and level: see `txraft.kv.commands`.
"""

from __future__ import annotations

from enum import Flag, IntEnum, auto


class Trait(Flag):
    """The properties of verbs by which other code treats them."""

    NONE = 0
    WRITES = auto()
    """It can change the state. A transaction without it is an ordinary read."""
    GROWS = auto()
    """It can make the state larger, so quotas count it."""
    TREE = auto()
    """Its key is a prefix, which may be empty."""
    VALUES = auto()
    """Its answer carries values, so a command that is done once cannot hold it."""
    INDEX = auto()
    """It compares the ModifyIndex of the key with the index that it carries."""


_WRITES, _GROWS = Trait.WRITES, Trait.WRITES | Trait.GROWS
_TREE, _VALUES, _INDEX = Trait.TREE, Trait.VALUES, Trait.INDEX


class OperationKind(IntEnum):
    """The verbs. A number stands in logs, so it is never changed nor used again."""

    SET = 1, "set", _GROWS
    CAS = 2, "cas", _GROWS | _INDEX
    LOCK = 3, "lock", _GROWS
    UNLOCK = 4, "unlock", _GROWS
    GET = 5, "get", _VALUES
    GET_OR_EMPTY = 6, "get-or-empty", _VALUES
    GET_TREE = 7, "get-tree", _VALUES | _TREE
    CHECK_INDEX = 8, "check-index", _INDEX
    CHECK_SESSION = 9, "check-session", Trait.NONE
    CHECK_NOT_EXISTS = 10, "check-not-exists", Trait.NONE
    DELETE = 11, "delete", _WRITES
    DELETE_TREE = 12, "delete-tree", _WRITES | _TREE
    DELETE_CAS = 13, "delete-cas", _WRITES | _INDEX

    verb: str
    traits: Trait

    def __new__(cls, number: int, verb: str, traits: Trait) -> OperationKind:
        """Make a row of the table."""
        kind = int.__new__(cls, number)
        kind._value_ = number
        kind.verb = verb
        kind.traits = traits
        return kind


def having(trait: Trait) -> frozenset[OperationKind]:
    """Return the verbs with *trait*."""
    return frozenset(kind for kind in OperationKind if trait in kind.traits)


# Sets, not a look at the traits of each operation: these stand on the path of apply.
VERBS = {kind.verb: kind for kind in OperationKind}
"""The verbs by their names in the API."""

WRITES = having(Trait.WRITES)
GROWS = having(Trait.GROWS)
TREES = having(Trait.TREE)
VALUES = having(Trait.VALUES)
INDEXED = having(Trait.INDEX)
