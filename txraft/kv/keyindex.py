"""The index of all keys: their order, and the last change under each prefix.

The index is derived from the records and never replicated. The work of each call is
bounded, whatever the number of keys:

- The keys lie in *leaves* of at most `MAX_LEAF_KEYS`, one leaf for each range of keys.
  A leaf is sorted only when it is read, so a new key costs one search among the leaves.
- Each leaf has the index of the last change in its range, deletions included. When a
  record is written over, its key is only noted; the leaf learns of it together with
  `MAX_BEHIND` others, or when somebody reads the index. So the last change under a
  prefix is the highest of the leaves that lie wholly under it, and of the keys under it
  in the leaves at its two ends.
- A `ReadView` shows the keys as they were when it was made, however long it is read.
  While one is open, the old records of all changes are kept, within bounds.

A `ReadView` and a `Capture` both show the past. A view is for a long list of one
prefix, which the reactor reads in steps, and ends if too much changes. A capture is for
a snapshot of all keys, which another thread writes, and never ends by itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence

from txraft.kv.capture import Capture
from txraft.kv.records import MODIFY_INDEX, VALUE, Row

MAX_TOMBSTONES = 1024
MAX_LEAF_KEYS = 1024
MAX_BEHIND = 2048
"""The most keys written over that the leaves do not know of yet."""

MAX_KEPT_CHANGES = 1 << 15
MAX_KEPT_BYTES = 32 << 20
"""The most that is kept for views. Beyond either bound all views end."""

FILLED_AT_ONCE = 2000
"""Keys placed in one step of `KeyIndex.fill`: two milliseconds."""


class ReadViewEnded(Exception):
    """Too much has changed since the read view was made: it shows nothing any more."""


class Leaf:
    """The keys of one range; some of them may be deleted, or stand here twice.

    A leaf is *tidy* if its keys are sorted and none stands twice. *gone* counts the
    deleted keys in it. It may count a key that came back, but it never counts too few.
    """

    __slots__ = ("gone", "keys", "tidy")

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.gone = 0
        self.tidy = True


class KeyIndex:
    """An index over *rows*, the dict of all records, which others change.

    The index of a deletion is known only after *floor*; older ones count as *floor*.
    `fill` must run first if *rows* is not empty.
    """

    def __init__(self, rows: Mapping[str, Row], floor: int) -> None:
        self.rows = rows
        self.views: dict[ReadView, None] = {}
        self._floor = floor
        self._tombstones: dict[str, int] = {}
        self._leaves = [Leaf([])]
        self._firsts = [""]
        self._changes = [floor]
        self._behind: dict[str, None] = {}
        self._kept: dict[str, list[tuple[int, Row | None]]] = {}
        self._kept_changes = self._kept_bytes = 0

    def fill(self) -> Iterator[None]:
        """Place all keys of *rows*, in steps; *rows* must not change between them.

        The index cannot be used before the last step.
        """
        floor = self._floor
        for count, key in enumerate(self.rows, 1):
            self._place(key, floor)
            if not count % FILLED_AT_ONCE:
                yield

    # Changes

    def changed(self, key: str, old: Row | None, index: int) -> None:
        """Note that *key*, which had the record *old* or none, was written."""
        if self.views:
            self._keep(key, old, index)
        if old is None:
            self._place(key, index)
            return
        # The hot path: to write over a key costs one dict entry here, not a search
        # among the leaves.
        behind = self._behind
        behind[key] = None
        if len(behind) >= MAX_BEHIND:
            self._catch_up()

    def removed(self, key: str, old: Row, index: int) -> None:
        """Note that *key*, which had the record *old*, was deleted at *index*."""
        if self.views:
            self._keep(key, old, index)
        tombstones = self._tombstones
        # Popped first, so that the order of the dict is the order of the deletions.
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

        It costs less for each key than `removed`, but it ends all views.
        """
        # To keep each old record for the views would cost as much as the deletion.
        self.end_views()
        self._bury(keys, index)
        low, high = self._range(prefix)
        has = self.rows.__contains__
        # Backwards: a leaf that is dropped moves the later ones.
        for position in range(high, low - 1, -1):
            self._changes[position] = index
            leaf = self._leaves[position]
            if low < position < high and not (kept and any(map(has, leaf.keys))):
                # It lies wholly under the prefix, and none of its keys is left.
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
        """Note that *keys*, which are sorted, were written over.

        It costs less for each key than `changed`.
        """
        self._keep_each(keys, olds, index)
        for position, _ in self._positions(keys):
            self._changes[position] = index

    def removed_each(
        self, keys: Sequence[str], olds: Sequence[Row], index: int
    ) -> None:
        """Note that *keys*, which are sorted, were deleted at *index*.

        It costs less for each key than `removed`.
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
        for position in reversed(shrinking):  # a dropped leaf moves the later ones
            self._shrink(position)

    # Reads

    def removed_at(self, key: str) -> int:
        """Return an index at which or before which *key* was last deleted."""
        return self._tombstones.get(key, self._floor)

    def changed_under(self, prefix: str) -> int:
        """Return the index of the last change under *prefix*, or a later one.

        Never an earlier one: a blocking query that waits after it would miss a change.
        """
        self._catch_up()
        low, high = self._range(prefix)
        found = max(self._changes[low + 1 : high], default=0)
        for position in {low, high}:
            found = max(found, self._changed_in(position, prefix))
        # The newest deletions first, so that this ends at the first that cannot matter.
        for key, index in reversed(self._tombstones.items()):
            if index <= found:
                break
            if key.startswith(prefix):
                return index
        return found

    def under(self, prefix: str) -> Iterator[str]:
        """Iterate over the keys that begin with *prefix*, in order.

        The rows must not change meanwhile.
        """
        rows = self.rows
        low, high = self._range(prefix)
        for position in range(low, high + 1):
            for key in self._between(position, prefix, _end_of(prefix)):
                if key in rows:
                    yield key

    def candidates(self, prefix: str) -> list[str]:
        """List the keys that begin with *prefix*, in an arbitrary order.

        Some may stand in it twice, or be deleted. To check each one here would cost as
        much as the deletion that the list is for.
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

    def read_view(self, prefix: str, index: int) -> ReadView:
        """Show what is under *prefix* now, the change at *index* being the last."""
        view = ReadView(self, prefix, index)
        self.views[view] = None
        return view

    def names_from(
        self, view: ReadView, start: str, most: int
    ) -> tuple[list[str], str | None]:
        """Return the next keys that *view* sees, from *start* on, at most *most*.

        Returns: the keys; and where to go on, None at the end
        """
        position = bisect_right(self._firsts, start) - 1
        keys = self._between(position, start, view.end)
        following: str | None = None
        if len(keys) > most:
            following = keys[most]
            del keys[most:]
        elif position + 1 < len(self._firsts):
            following = self._firsts[position + 1]
            if view.end is not None and following >= view.end:
                following = None
        # While nothing is kept nothing has changed since the view, and a tidy leaf
        # holds only keys that exist: no look at each of them is needed.
        if self._kept:
            at = view.index
            keys = [key for key in keys if self._row_at(key, at) is not None]
        return keys, following

    def seen_from(
        self, view: ReadView, start: str, most: int
    ) -> tuple[list[tuple[str, Row]], str | None]:
        """Return what `names_from` does, with the records that *view* sees."""
        keys, following = self.names_from(view, start, most)
        # For speed: nothing has changed since the view, see `names_from`.
        if not self._kept:
            return list(
                zip(keys, map(self.rows.__getitem__, keys), strict=True)
            ), following
        found = ((key, self._row_at(key, view.index)) for key in keys)
        return [(key, row) for key, row in found if row is not None], following

    def leave(self, view: ReadView) -> None:
        """Keep nothing for *view* any more; idempotent."""
        self.views.pop(view, None)
        if self.views or not self._kept:
            return
        # Leaves have kept deleted keys for the views. With the last one these go.
        rows, firsts = self.rows, self._firsts
        gone = {bisect_right(firsts, k) - 1 for k in self._kept if k not in rows}
        self._kept.clear()
        self._kept_changes = self._kept_bytes = 0
        for position in sorted(
            gone, reverse=True
        ):  # a dropped leaf moves the later ones
            leaf = self._leaves[position]
            if 2 * leaf.gone > len(leaf.keys):
                self._shrink(position)

    # Leaves

    def _place(self, key: str, index: int) -> None:
        """Append the new *key* to the leaf of its range."""
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
        # Two new lists, as a capture may still read the old one.
        leaf, new = self._leaves[position], Leaf(keys[half:])
        leaf.keys = keys[:half]
        if leaf.gone:
            # Deleted keys that views may still see. A half that did not count its own
            # would never drop them, and show them when the views are over.
            new.gone = sum(key not in self.rows for key in new.keys)
            leaf.gone -= new.gone
        self._leaves.insert(position + 1, new)
        self._firsts.insert(position + 1, new.keys[0])
        self._changes.insert(position + 1, self._changes[position])

    def _shrink(self, position: int) -> None:
        """Drop the deleted keys of a leaf; merge it with a neighbour if it is small."""
        keys = self._tidied(position)
        if len(self._leaves) == 1 or len(keys) > MAX_LEAF_KEYS // 8:
            return
        left = max(position - 1, 0)
        leaf, other = self._leaves[left], self._leaves[left + 1]
        if len(leaf.keys) + len(other.keys) > MAX_LEAF_KEYS // 2:
            return
        # Not `+=`: a capture may still read the old list, and counts on its length.
        leaf.keys = leaf.keys + other.keys
        leaf.gone += other.gone
        leaf.tidy = leaf.tidy and other.tidy
        self._drop(left + 1)

    def _drop(self, position: int) -> None:
        """Remove the leaf at *position*; the leaf before it takes over its range."""
        changes = self._changes
        changes[position - 1] = max(changes[position - 1 : position + 1])
        del self._leaves[position], self._firsts[position], changes[position]

    def _bury(self, keys: Sequence[str], index: int) -> None:
        """Note the deletion of *keys* at *index*."""
        if len(keys) > MAX_TOMBSTONES:
            # The same as one by one: each would push out the one before.
            self._floor = index
            self._tombstones.clear()
            return
        for key in keys:
            self._tombstones.pop(key, None)
            self._tombstones[key] = index
        while len(self._tombstones) > MAX_TOMBSTONES:
            self._floor = self._tombstones.pop(next(iter(self._tombstones)))

    def _positions(self, keys: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Iterate over the leaves of sorted *keys*, each with its number of them."""
        firsts, start = self._firsts, 0
        while start < len(keys):
            position = bisect_right(firsts, keys[start]) - 1
            end = len(keys)
            if position + 1 < len(firsts):
                end = bisect_left(keys, firsts[position + 1], start + 1)
            yield position, end - start
            start = end

    def _tidied(self, position: int) -> list[str]:
        """Sort the keys of a leaf, drop doubles and deleted ones, and return them.

        Deleted keys stay only if a view may still see them.
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
        """Return the last change under *prefix* in a leaf with keys of other prefixes.

        Forgotten deletions count as late as they can have been: at the floor, but not
        after the last change of the leaf.
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
            # If the key was deleted since, its leaf knows that already.
            if row is not None:
                position = bisect_right(firsts, key) - 1
                if row[MODIFY_INDEX] > changes[position]:
                    changes[position] = row[MODIFY_INDEX]
        self._behind.clear()

    # Read views

    def _keep(self, key: str, old: Row | None, index: int) -> None:
        """Keep *old*, the record of *key* before the change at *index*, for views."""
        newest = next(reversed(self.views)).index
        kept = self._kept.setdefault(key, [])
        if kept and kept[-1][0] > newest:
            # No view lies between this change and the last: nobody can see *old*.
            return
        kept.append((index, old))
        self._kept_changes += 1
        self._kept_bytes += 0 if old is None else len(old[VALUE])
        if self._kept_changes > MAX_KEPT_CHANGES or self._kept_bytes > MAX_KEPT_BYTES:
            self.end_views()

    def _keep_each(self, keys: Sequence[str], olds: Sequence[Row], index: int) -> None:
        if self.views:
            for key, old in zip(keys, olds, strict=True):
                self._keep(key, old, index)
                if not self.views:
                    return  # the views have ended: their bounds were reached

    def end_views(self) -> None:
        """End all views: their readers get `ReadViewEnded`."""
        for view in list(self.views):
            view.is_over = True
            self.leave(view)

    def _row_at(self, key: str, index: int) -> Row | None:
        """Return the record that *key* had after the change at *index*."""
        for changed, old in self._kept.get(key, ()):
            if changed > index:
                return old
        return self.rows.get(key)


class ReadView:
    """The keys under *prefix* with their records after the change at *index*.

    It is read in pieces. *end* is the first text after all keys under the prefix. An
    open view costs memory, so it must be closed, unless *is_over*.
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

        A piece may be empty before the end, if none of its keys existed then.
        Raises: ReadViewEnded
        """
        if self.is_over:
            raise ReadViewEnded
        if self._start is None:
            return None
        found, self._start = self._keys.seen_from(self, self._start, most)
        return found

    def read_names(self, most: int) -> list[str] | None:
        """Return the next keys without records, as `read` does, at much less cost."""
        if self.is_over:
            raise ReadViewEnded
        if self._start is None:
            return None
        found, self._start = self._keys.names_from(self, self._start, most)
        return found

    def skip(self, prefix: str) -> None:
        """Go on after all keys that begin with *prefix*."""
        self._start = _end_of(prefix)
        if self._start is not None and self.end is not None:
            self._start = self._start if self._start < self.end else None

    def close(self) -> None:
        """End this view; idempotent."""
        self._keys.leave(self)


def _end_of(prefix: str) -> str | None:
    """Return the first text after all that begin with *prefix*, None if there is none.

    Texts compare by code points, so the result need not be a valid character.
    """
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
