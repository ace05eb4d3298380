"""The state machine of a simulation: registers and lists, by key."""

from __future__ import annotations

from zlib import crc32

from txraft.core.entry import Entry, LogType
from txraft.testing.linearizability import Kind, Operation, Value


def encode(number: int, operation: Operation) -> bytes:
    """Write the command that does *operation*, unlike any other command."""
    expected = -1 if operation.expected is None else operation.expected
    return b"%d %s %s %d %d" % (
        number,
        operation.kind.value.encode(),
        operation.key.encode(),
        operation.argument or 0,
        expected,
    )


class Registers:
    """What all committed commands up to *index* have made of the keys.

    *digest* stands for the whole sequence of entries that led here.
    """

    __slots__ = ("digest", "index", "values")

    def __init__(self) -> None:
        self.index = 0
        self.digest = 0
        self.values: dict[str, Value] = {}

    def copy(self) -> Registers:
        """Return a state that goes its own way."""
        other = Registers()
        other.index, other.digest = self.index, self.digest
        other.values = dict(self.values)
        return other

    def apply(self, entry: Entry) -> Value:
        """Apply the next committed entry, and answer as its kind of command does."""
        assert entry.index == self.index + 1, "entries are applied in order, once"
        self.index = entry.index
        data = entry.data or b""
        self.digest = crc32(data, crc32(b"%d" % entry.term, self.digest))
        if entry.type is not LogType.COMMAND:
            return None
        _, kind, key, argument, expected = data.decode().split()
        return self._command(Kind(kind), key, int(argument), int(expected))

    def _command(self, kind: Kind, key: str, argument: int, expected: int) -> Value:
        known = self.values.get(key)
        match kind:
            case Kind.WRITE:
                self.values[key] = argument
            case Kind.DELETE:
                self.values.pop(key, None)
            case Kind.CAS:
                if known == (None if expected < 0 else expected):
                    self.values[key] = argument
                return known
            case Kind.APPEND:
                items = known if isinstance(known, tuple) else ()
                self.values[key] = (*items, argument)
            case Kind.READ:
                raise AssertionError("reads are not written to the log")
        return None
