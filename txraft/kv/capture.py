"""Copy-on-write captures: a thread reads the records of one moment as commands go on.

To make a capture copies one pointer for each leaf of the key index. From then on, each
command hands the record that it replaces to every open capture. So a snapshot costs the
reactor something for each record that changes meanwhile, and nothing for the others.

Two rules make that safe without a lock. The old record is kept *before* the new one
takes its place, so a reader that finds the new record finds the old one, too. And a
list of keys in a leaf only ever grows at its end, so the part that belongs to a capture
stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from txraft.kv.records import MODIFY_INDEX, Row


class Capture:
    """The records of *rows* as they are now, *index* being that of the last change.

    *leaves* are lists of keys, each with the number of its keys that belong to this
    moment. Together they hold every key, and no key is in two of them.
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
        """Iterate over keys and records, in an arbitrary order.

        Thread: any
        """
        get, kept, index = self._rows.get, self._kept, self._index
        for keys, size in self._leaves:
            # A leaf may hold keys that were deleted before, and keys that stand in it
            # twice: it is put in order only when the index reads it.
            for key in dict.fromkeys(keys[:size]):
                row = get(key)
                if row is None or row[MODIFY_INDEX] > index:
                    # `kept` must be read after `rows`. The other way round, a command
                    # between the two would hide both the old record and the new one.
                    row = kept.get(key)
                if row is not None:
                    yield key, row

    def keep(self, key: str, old: Row) -> None:
        """Keep *old*, the record of *key*, which is about to be changed."""
        # A record newer than the capture replaced one that is kept already. To keep it
        # would overwrite the one that belongs to the capture.
        if old[MODIFY_INDEX] <= self._index:
            self._kept[key] = old

    def keep_many(self, keys: Iterable[str]) -> None:
        """Keep the records of those *keys* that exist, before they change."""
        get, index = self._rows.get, self._index
        found = ((key, get(key)) for key in keys)
        self._kept.update(
            {
                key: row
                for key, row in found
                if row is not None and row[MODIFY_INDEX] <= index
            }
        )

    def drain(self, most: int) -> bool:
        """Free up to *most* kept records; return whether none are left.

        Nobody may read the capture any more.
        """
        # To drop the dict at once would free all of it in one turn of the reactor.
        kept = self._kept
        for _ in range(min(most, len(kept))):
            kept.popitem()
        return not kept
