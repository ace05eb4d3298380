"""The records of one moment, for a thread that reads them while commands go on.

Nothing is copied but a pointer for each leaf of the index. What a command changes is
kept as it was, in the turn that changes it, for each capture there is: so a snapshot
costs the reactor something for what changes while it is written, and nothing for what
does not.

Two rules make that safe without a lock. The old record is kept *before* the new one
takes its place: whoever finds the new one finds the old one, too. And lists of keys in
leaves only ever grow at their end, so that their beginning stays what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from txraft.kv.records import Row


class Capture:
    """The records of *rows* as they are now, *index* being that of the last change.

    *leaves* are lists of keys, and how many of each belong to this moment: all keys,
    none of them in two lists.
    """

    __slots__ = ("_index", "_kept", "_leaves", "_rows", "_size", "is_released")

    def __init__(
        self, rows: Mapping[str, Row], leaves: list[tuple[list[str], int]], index: int
    ) -> None:
        self._rows = rows
        self._leaves = leaves
        self._index = index
        self._size = len(rows)
        self._kept: dict[str, Row] = {}
        self.is_released = False

    def __len__(self) -> int:
        """Return the number of records."""
        return self._size

    def items(self) -> Iterator[tuple[str, Row]]:
        """Iterate over keys and records, in no order that means anything.

        Thread: any
        """
        get, kept, index = self._rows.get, self._kept, self._index
        for keys, size in self._leaves:
            # Among them may be some that had gone then, and some that stand here twice.
            for key in dict.fromkeys(keys[:size]):
                row = get(key)
                if row is None or row[3] > index:
                    # Looked for only now: what is not kept yet has not been changed.
                    row = kept.get(key)
                if row is not None:
                    yield key, row

    def keep(self, key: str, old: Row) -> None:
        """Keep *old*, the record of *key*, which is about to be changed."""
        # A later one belongs to a change that came after this moment.
        if old[3] <= self._index:
            self._kept[key] = old

    def keep_many(self, keys: Iterable[str]) -> None:
        """Keep the records of *keys*, as far as they are there, before they change."""
        get, index = self._rows.get, self._index
        found = ((key, get(key)) for key in keys)
        self._kept.update(
            {key: row for key, row in found if row is not None and row[3] <= index}
        )

    def drain(self, most: int) -> bool:
        """Free *most* of what was kept, once nobody reads it; tell if that was all."""
        kept = self._kept
        for _ in range(min(most, len(kept))):
            kept.popitem()
        return not kept
