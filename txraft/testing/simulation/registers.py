"""The state machine of a simulation: registers and lists, by key."""

from __future__ import annotations

from zlib import crc32

from txraft.core.entry import Entry, LogType
from txraft.testing.linearizability import ClientOperation, ClientOperationKind, Value
from txraft.wire.decisions import activated_level


def encode(number: int, operation: ClientOperation) -> bytes:
    """Encode *operation* as a command; *number* makes it different from all others."""
    expected = -1 if operation.expected is None else operation.expected
    return b"%d %s %s %d %d" % (
        number,
        operation.kind.value.encode(),
        operation.key.encode(),
        operation.argument or 0,
        expected,
    )


class Registers:
    """The values of all keys after the committed entries up to `index`.

    `digest` is a checksum of that whole sequence of entries, so two servers with equal
    digests have applied the same entries in the same order. `level` is the one that was
    activated last.
    """

    __slots__ = ("digest", "index", "level", "values")

    def __init__(self) -> None:
        self.index = 0
        self.digest = 0
        self.level = 0
        self.values: dict[str, Value] = {}

    def copy(self) -> Registers:
        """Return an independent copy."""
        other = Registers()
        other.index, other.digest = self.index, self.digest
        other.level = self.level
        other.values = dict(self.values)
        return other

    def apply(self, entry: Entry) -> Value:
        """Apply the next committed entry.

        Returns: the value that a compare-and-set found, None for all others.
        """
        assert entry.index == self.index + 1, "entries are applied in order, once"
        self.index = entry.index
        data = entry.data or b""
        self.digest = crc32(data, crc32(b"%d" % entry.term, self.digest))
        if entry.type is not LogType.COMMAND:
            self.level = max(self.level, activated_level(data))
            return None
        _, kind, key, argument, expected = data.decode().split()
        return self._command(
            ClientOperationKind(kind), key, int(argument), int(expected)
        )

    def _command(
        self, kind: ClientOperationKind, key: str, argument: int, expected: int
    ) -> Value:
        known = self.values.get(key)
        match kind:
            case ClientOperationKind.WRITE:
                self.values[key] = argument
            case ClientOperationKind.DELETE:
                self.values.pop(key, None)
            case ClientOperationKind.CAS:
                if known == (None if expected < 0 else expected):
                    self.values[key] = argument
                return known
            case ClientOperationKind.APPEND:
                items = known if isinstance(known, tuple) else ()
                self.values[key] = (*items, argument)
            case ClientOperationKind.READ:
                raise AssertionError("reads are not written to the log")
        return None
