"""The keys in order, and when what is under a prefix changed last.

It is derived from the records and never replicated. All that it does for one call is
bounded, whatever the number of keys:

- The keys lie in *leaves* of at most `MAX_LEAF_KEYS`, each for a range of them. A leaf
  is put in order when it is read, so a new key costs a search among the leaves.
- Each leaf has the index of the last change in its range, deletions included. A record
  that is written over is noted only; its leaf learns of it with `MAX_BEHIND` others, or
  when somebody asks. So the last change under a prefix is the highest of the leaves in
  between, and of the keys at its two ends.
- A `Moment` shows the keys as they were when it was made, however long it is read.
  While there is one, what changes is kept as it was before, within bounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence

from txraft.kv.capture import Capture
from txraft.kv.records import Row

MAX_TOMBSTONES = 1024
MAX_LEAF_KEYS = 1024
MAX_BEHIND = 2048
"""Records written over of which the leaves do not know yet."""

MAX_KEPT_CHANGES = 1 << 15
MAX_KEPT_BYTES = 32 << 20
"""What is kept for moments: more changes than that, and they are over."""

FILLED_AT_ONCE = 2000
"""Keys that take their places in one step of `KeyIndex.fill`: two milliseconds."""


class MomentOver(Exception):
    """Too much has changed since the moment was made: it cannot be seen any more."""


class Leaf:
    """The keys of one range; some of them may be gone, or here twice.

    They are *tidy* once they are in order, each of them once and there.
    """

    __slots__ = ("gone", "keys", "tidy")

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.gone = 0
        self.tidy = True


class KeyIndex:
    """An index over *rows*, the dict of all records, which others change.

    *floor* is the index up to which it is not known what was deleted when. What is in
    *rows* at first has to be filled in.
    """

    def __init__(self, rows: Mapping[str, Row], floor: int) -> None:
        self.rows = rows
        self.moments: dict[Moment, None] = {}
        self._floor = floor
        self._tombstones: dict[str, int] = {}
        self._leaves = [Leaf([])]
        self._firsts = [""]
        self._changes = [floor]
        self._behind: dict[str, None] = {}
        self._kept: dict[str, list[tuple[int, Row | None]]] = {}
        self._kept_changes = self._kept_bytes = 0

    def fill(self) -> Iterator[None]:
        """Let all keys of *rows* take their places, in steps; nothing changes between.

        Until it is through, this index is of no use.
        """
        floor = self._floor
        for count, key in enumerate(self.rows, 1):
            self._place(key, floor)
            if not count % FILLED_AT_ONCE:
                yield

    # Changes

    def changed(self, key: str, old: Row | None, index: int) -> None:
        """Note that *key*, which had the record *old* or none, was written."""
        if self.moments:
            self._keep(key, old, index)
        if old is None:
            self._place(key, index)
            return
        behind = self._behind
        behind[key] = None
        if len(behind) >= MAX_BEHIND:
            self._catch_up()

    def removed(self, key: str, old: Row, index: int) -> None:
        """Note that *key*, which had the record *old*, was deleted at *index*."""
        if self.moments:
            self._keep(key, old, index)
        tombstones = self._tombstones
        tombstones.pop(key, None)
        tombstones[key] = index
        if len(tombstones) > MAX_TOMBSTONES:
            self._floor = tombstones.pop(next(iter(tombstones)))
        position = bisect_right(self._firsts, key) - 1
        self._changes[position] = index
        leaf = self._leaves[position]
        leaf.gone += 1
        if 2 * leaf.gone > len(leaf.keys):
            self._shrink(position)

    def removed_many(
        self, prefix: str, keys: Sequence[str], kept: Collection[str], index: int
    ) -> None:
        """Note that *keys* were deleted at *index*: all under *prefix* but *kept*.

        It costs less for each than `removed`. Whoever looks at a moment has to take
        another.
        """
        self.end_moments()
        self._bury(keys, index)
        low, high = self._range(prefix)
        has = self.rows.__contains__
        for position in range(high, low - 1, -1):  # as later ones move up
            self._changes[position] = index
            leaf = self._leaves[position]
            if low < position < high and not (kept and any(map(has, leaf.keys))):
                self._drop(position)
            else:
                leaf.tidy = False
        for position in range(
            min(low + 1, len(self._leaves) - 1), max(low - 1, -1), -1
        ):
            self._shrink(position)

    def changed_each(
        self, keys: Sequence[str], olds: Sequence[Row], index: int
    ) -> None:
        """Note that *keys*, which are in order, were written over.

        It costs less for each than `changed`.
        """
        self._keep_each(keys, olds, index)
        for position, _ in self._positions(keys):
            self._changes[position] = index

    def removed_each(
        self, keys: Sequence[str], olds: Sequence[Row], index: int
    ) -> None:
        """Note that *keys*, which are in order, were deleted at *index*.

        It costs less for each than `removed`.
        """
        self._keep_each(keys, olds, index)
        self._bury(keys, index)
        shrinking: list[int] = []
        for position, count in self._positions(keys):
            self._changes[position] = index
            leaf = self._leaves[position]
            leaf.gone += count
            if 2 * leaf.gone > len(leaf.keys):
                shrinking.append(position)
        for position in reversed(shrinking):  # as later ones move up
            self._shrink(position)

    # Reads

    def removed_at(self, key: str) -> int:
        """Return an index at which or before which *key* was last deleted."""
        return self._tombstones.get(key, self._floor)

    def changed_under(self, prefix: str) -> int:
        """Return the index of the last change under *prefix*, or a later one."""
        self._catch_up()
        low, high = self._range(prefix)
        found = max(self._changes[low + 1 : high], default=0)
        for position in {low, high}:
            found = max(found, self._changed_in(position, prefix))
        for key, index in reversed(self._tombstones.items()):
            if index <= found:
                break
            if key.startswith(prefix):
                return index
        return found

    def under(self, prefix: str) -> Iterator[str]:
        """Iterate over the keys that begin with *prefix*, in the order of their text.

        The rows must not change meanwhile.
        """
        rows = self.rows
        low, high = self._range(prefix)
        for position in range(low, high + 1):
            for key in self._between(position, prefix, _end_of(prefix)):
                if key in rows:
                    yield key

    def candidates(self, prefix: str) -> list[str]:
        """List the keys that begin with *prefix*, in no order that means anything.

        Some may be in it twice, or be gone: to ask for each takes as long as to delete
        it.
        """
        low, high = self._range(prefix)
        found = self._between(low, prefix, _end_of(prefix))
        for position in range(low + 1, high):
            found += self._leaves[position].keys
        if low < high:
            found += self._between(high, prefix, _end_of(prefix))
        return found

    def capture(self, index: int) -> Capture:
        """Capture all records, the change at *index* being the last."""
        leaves = [(leaf.keys, len(leaf.keys)) for leaf in self._leaves]
        return Capture(self.rows, leaves, index)

    def moment(self, prefix: str, index: int) -> Moment:
        """Show what is under *prefix* now, the change at *index* being the last."""
        moment = Moment(self, prefix, index)
        self.moments[moment] = None
        return moment

    def names_from(
        self, moment: Moment, start: str, most: int
    ) -> tuple[list[str], str | None]:
        """Return the keys that *moment* sees from *start* on: *most* at most.

        Returns: the keys; and where to go on, None at the end.
        """
        position = bisect_right(self._firsts, start) - 1
        keys = self._between(position, start, moment.end)
        following: str | None = None
        if len(keys) > most:
            following = keys[most]
            del keys[most:]
        elif position + 1 < len(self._firsts):
            following = self._firsts[position + 1]
            if moment.end is not None and following >= moment.end:
                following = None
        if self._kept:
            at = moment.index
            keys = [key for key in keys if self._row_at(key, at) is not None]
        return keys, following  # without what is kept, a tidy leaf holds no others

    def seen_from(
        self, moment: Moment, start: str, most: int
    ) -> tuple[list[tuple[str, Row]], str | None]:
        """Return what `names_from` does, with the records that *moment* sees."""
        keys, following = self.names_from(moment, start, most)
        if not self._kept:
            return list(
                zip(keys, map(self.rows.__getitem__, keys), strict=True)
            ), following
        found = ((key, self._row_at(key, moment.index)) for key in keys)
        return [(key, row) for key, row in found if row is not None], following

    def leave(self, moment: Moment) -> None:
        """Keep nothing for *moment* any more; idempotent."""
        self.moments.pop(moment, None)
        if self.moments or not self._kept:
            return
        rows, firsts = self.rows, self._firsts
        gone = {bisect_right(firsts, k) - 1 for k in self._kept if k not in rows}
        self._kept.clear()
        self._kept_changes = self._kept_bytes = 0
        for position in sorted(gone, reverse=True):  # as later ones move up
            leaf = self._leaves[position]
            if 2 * leaf.gone > len(leaf.keys):
                self._shrink(position)

    # Leaves

    def _place(self, key: str, index: int) -> None:
        """Put the new *key* at the end of the leaf for its range."""
        position = bisect_right(self._firsts, key) - 1
        leaf = self._leaves[position]
        keys = leaf.keys
        if keys and key <= keys[-1]:
            leaf.tidy = False
        keys.append(key)
        if index > self._changes[position]:
            self._changes[position] = index
        if len(keys) > MAX_LEAF_KEYS:
            self._split(position)

    def _split(self, position: int) -> None:
        keys = self._tidied(position)
        half = len(keys) // 2
        if half < MAX_LEAF_KEYS // 4:
            return
        # Both are new lists: a capture may still read the old one.
        new = Leaf(keys[half:])
        self._leaves[position].keys = keys[:half]
        self._leaves.insert(position + 1, new)
        self._firsts.insert(position + 1, new.keys[0])
        self._changes.insert(position + 1, self._changes[position])

    def _shrink(self, position: int) -> None:
        """Drop what has gone; what is left of a small leaf goes to its neighbour."""
        keys = self._tidied(position)
        if len(self._leaves) == 1 or len(keys) > MAX_LEAF_KEYS // 8:
            return
        left = max(position - 1, 0)
        leaf, other = self._leaves[left], self._leaves[left + 1]
        if len(leaf.keys) + len(other.keys) > MAX_LEAF_KEYS // 2:
            return
        leaf.keys = leaf.keys + other.keys  # a new list, for the sake of captures
        leaf.gone += other.gone
        leaf.tidy = leaf.tidy and other.tidy
        self._drop(left + 1)

    def _drop(self, position: int) -> None:
        """Let the leaf before the one at *position* have its range."""
        changes = self._changes
        changes[position - 1] = max(changes[position - 1 : position + 1])
        del self._leaves[position], self._firsts[position], changes[position]

    def _bury(self, keys: Sequence[str], index: int) -> None:
        """Note when *keys* were deleted."""
        if len(keys) > MAX_TOMBSTONES:
            # As if each had been noted, and pushed out the one before.
            self._floor = index
            self._tombstones.clear()
            return
        for key in keys:
            self._tombstones.pop(key, None)
            self._tombstones[key] = index
        while len(self._tombstones) > MAX_TOMBSTONES:
            self._floor = self._tombstones.pop(next(iter(self._tombstones)))

    def _positions(self, keys: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Tell the leaves of *keys*, which are in order, and how many each has."""
        firsts, start = self._firsts, 0
        while start < len(keys):
            position = bisect_right(firsts, keys[start]) - 1
            end = len(keys)
            if position + 1 < len(firsts):
                end = bisect_left(keys, firsts[position + 1], start + 1)
            yield position, end - start
            start = end

    def _tidied(self, position: int) -> list[str]:
        """Return the keys of a leaf in order, each of them once.

        Those that have gone are among them only if a moment may still see them.
        """
        leaf = self._leaves[position]
        if not leaf.tidy or leaf.gone:
            rows, kept = self.rows, self._kept
            there = {key for key in leaf.keys if key in rows}
            seen = {key for key in leaf.keys if key in kept} - there if kept else set()
            leaf.keys = sorted(there | seen)
            leaf.tidy, leaf.gone = True, len(seen)
        return leaf.keys

    def _range(self, prefix: str) -> tuple[int, int]:
        """Return the first and the last leaf that may hold keys under *prefix*."""
        low = bisect_right(self._firsts, prefix) - 1
        end = _end_of(prefix)
        if end is None:
            return low, len(self._firsts) - 1
        return low, bisect_left(self._firsts, end, low + 1) - 1

    def _between(self, position: int, start: str, end: str | None) -> list[str]:
        """Return the keys of a leaf from *start* on and before *end*."""
        keys = self._tidied(position)
        first = bisect_left(keys, start)
        last = len(keys) if end is None else bisect_left(keys, end)
        return keys[first:last]

    def _changed_in(self, position: int, prefix: str) -> int:
        """Return the last change under *prefix* in a leaf that holds others, too.

        Of deletions it knows only that none was later than those of all the leaf.
        """
        rows = self.rows
        keys = self._between(position, prefix, _end_of(prefix))
        modified = (rows[key][3] for key in keys if key in rows)
        forgotten = min(self._floor, self._changes[position])
        return max(forgotten, max(modified, default=0))

    def _catch_up(self) -> None:
        """Let the leaves know of the records that were written over."""
        rows, firsts, changes = self.rows, self._firsts, self._changes
        for key in self._behind:
            row = rows.get(key)
            # One that was deleted since has told its leaf.
            if row is not None:
                position = bisect_right(firsts, key) - 1
                if row[3] > changes[position]:
                    changes[position] = row[3]
        self._behind.clear()

    # Moments

    def _keep(self, key: str, old: Row | None, index: int) -> None:
        """Keep *old*, which was the record of *key* until *index*, for the moments."""
        newest = next(reversed(self.moments)).index
        kept = self._kept.setdefault(key, [])
        if kept and kept[-1][0] > newest:
            return  # no moment lies in between
        kept.append((index, old))
        self._kept_changes += 1
        self._kept_bytes += 0 if old is None else len(old[0])
        if self._kept_changes > MAX_KEPT_CHANGES or self._kept_bytes > MAX_KEPT_BYTES:
            self.end_moments()

    def _keep_each(self, keys: Sequence[str], olds: Sequence[Row], index: int) -> None:
        if self.moments:
            for key, old in zip(keys, olds, strict=True):
                self._keep(key, old, index)
                if not self.moments:
                    return  # it was too much for them

    def end_moments(self) -> None:
        """Let nobody see a moment any more."""
        for moment in list(self.moments):
            moment.is_over = True
            self.leave(moment)

    def _row_at(self, key: str, index: int) -> Row | None:
        """Return the record that *key* had after the change at *index*."""
        for changed, old in self._kept.get(key, ()):
            if changed > index:
                return old
        return self.rows.get(key)


class Moment:
    """What is under *prefix*, with the records of one moment; read it in pieces.

    It is that after the change at *index*. *end* follows on all that is under the
    prefix. It costs the node something until it is closed, or *is_over*.
    """

    __slots__ = ("_keys", "_start", "end", "index", "is_over")

    def __init__(self, keys: KeyIndex, prefix: str, index: int) -> None:
        self._keys = keys
        self._start: str | None = prefix
        self.end = _end_of(prefix)
        self.index = index
        self.is_over = False

    def read(self, most: int) -> list[tuple[str, Row]] | None:
        """Return the next keys and records, at most *most*; None after the last.

        None of a piece may have been there then: an empty one is not the end.
        Raises: MomentOver
        """
        if self.is_over:
            raise MomentOver
        if self._start is None:
            return None
        found, self._start = self._keys.seen_from(self, self._start, most)
        return found

    def read_names(self, most: int) -> list[str] | None:
        """Return the next keys as `read` does, which costs much less."""
        if self.is_over:
            raise MomentOver
        if self._start is None:
            return None
        found, self._start = self._keys.names_from(self, self._start, most)
        return found

    def skip(self, prefix: str) -> None:
        """Go on behind all that begins with *prefix*, which was just read."""
        self._start = _end_of(prefix)
        if self._start is not None and self.end is not None:
            self._start = self._start if self._start < self.end else None

    def close(self) -> None:
        """Let go; idempotent."""
        self._keys.leave(self)


def _end_of(prefix: str) -> str | None:
    """Return the first text behind all that begin with *prefix*, None for no such.

    Texts compare by code points, and so do these, whether or not they are characters.
    """
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
