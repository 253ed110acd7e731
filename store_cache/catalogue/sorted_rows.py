"""Rows sorted by id, in blocks, so that a page is a few slices.

A dict alone would need a lookup for each product of a page. In a large catalogue each lookup is a
miss of the processor's caches, and the lookups are nearly all that a page would cost.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice
from operator import lt

BLOCK_ROWS = 1_000
"""Rows of a block as it is filled. A block is split at twice as many, and joined with another one
below a quarter. With this size, moving a block's rows for an insertion and counting the blocks anew
for the page after it cost about the same at a million products."""

MANY_UPDATES = 100
"""With more pending updates than this, a block drops its list of rows, and the next read makes it
anew with one lookup per row. That is cheaper than finding the place of every update, and frees the
old rows at once."""


class _Block:
    """A run of sorted ids and their rows.

    `updates`: rows that replace some of `rows`. The next read puts them in place, so that no
    acknowledgement waits for that. `rows` is None if nearly all of them have been replaced.
    """

    __slots__ = ("ids", "rows", "updates")

    def __init__(self, ids: list[str], rows: list[bytes] | None) -> None:
        self.ids = ids
        self.rows = rows
        self.updates: dict[str, bytes] = {}

    def current_rows(self, by_id: Mapping[str, bytes]) -> list[bytes]:
        """Return the rows with all updates in place."""
        if self.rows is None:
            self.rows = list(map(by_id.__getitem__, self.ids))
        elif self.updates:
            for product_id, row in self.updates.items():
                self.rows[bisect_left(self.ids, product_id)] = row
            self.updates = {}
        return self.rows


class SortedRows:
    """The rows of `by_id` in code point order of their ids. Both have to be changed together.

    There is always a block; only a single one may be empty. A place is the number of a block and an
    index in it.
    """

    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        self._by_id = by_id
        self._blocks = [_Block([], [])]
        self._last_ids = [""]
        self._starts: list[int] | None = None  # offset of each block; None: has to be counted

    # -- reads -----------------------------------------------------------------------------

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Return rows `offset` to `offset + limit`."""
        starts = self._starts or self.count()
        block = bisect_right(starts, offset) - 1
        return self._rows(block, offset - starts[block], limit)

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """Return the offset of the first row after `product_id`, and the rows from there."""
        block, index = self._place_after(product_id)
        starts = self._starts or self.count()
        return starts[block] + index, self._rows(block, index, limit)

    def after(self, product_id: str, limit: int) -> tuple[list[str], list[bytes]]:
        """Return ids and rows after `product_id`."""
        block, index = self._place_after(product_id)
        return self._ids(block, index, limit), self._rows(block, index, limit)

    def ids(self) -> Iterator[str]:
        return chain.from_iterable(block.ids for block in self._blocks)

    def among(self, ids: Sequence[str]) -> set[str] | None:
        """Return those of `ids` that are held; None if that needs a lookup of each."""
        between = self._between(ids)
        return None if between is None else set(between).intersection(ids)

    def reuse_ids(self, ids: Sequence[str]) -> Sequence[str]:
        """Return the ids, as the string objects held where those are found without lookups."""
        between = self._between(ids) or ()
        held = dict(zip(between, between, strict=True))
        return list(map(held.get, ids, ids)) if held else ids

    def _between(self, ids: Sequence[str]) -> list[str] | None:
        """Return all ids held from the first to the last of `ids`; None if `ids` are not sorted, or
        far more lie between."""
        if not ids or not _is_ascending(ids):
            return None if ids else []
        first, begin = self._place_of(ids[0])
        last, end = self._place_of(ids[-1])
        if last - first > len(ids) // BLOCK_ROWS + 2:
            return None
        if first == last:
            return self._blocks[first].ids[begin : end + 1]
        blocks = (block.ids for block in self._blocks[first : last + 1])
        return list(chain.from_iterable(blocks))

    def count(self) -> list[int]:
        """Count the offset of each block, which reads need after rows were added or removed."""
        lengths = (len(block.ids) for block in self._blocks[:-1])
        self._starts = list(accumulate(lengths, initial=0))
        return self._starts

    def _place_of(self, product_id: str) -> tuple[int, int]:
        """Return where the product is, or would be."""
        number = min(bisect_left(self._last_ids, product_id), len(self._blocks) - 1)
        return number, bisect_left(self._blocks[number].ids, product_id)

    def _place_after(self, product_id: str) -> tuple[int, int]:
        number = min(bisect_right(self._last_ids, product_id), len(self._blocks) - 1)
        return number, bisect_right(self._blocks[number].ids, product_id)

    def _rows(self, block: int, index: int, limit: int) -> list[bytes]:
        rows = self._blocks[block].current_rows(self._by_id)[index : index + limit]
        while len(rows) < limit and (block := block + 1) < len(self._blocks):
            rows += self._blocks[block].current_rows(self._by_id)[: limit - len(rows)]
        return rows

    def _ids(self, block: int, index: int, limit: int) -> list[str]:
        ids = self._blocks[block].ids[index : index + limit]
        while len(ids) < limit and (block := block + 1) < len(self._blocks):
            ids += self._blocks[block].ids[: limit - len(ids)]
        return ids

    # -- changes ---------------------------------------------------------------------------

    def is_behind(self, ids: Sequence[str]) -> bool:
        """Return whether `ids` are sorted, each once, and follow all that are held."""
        return not ids or (ids[0] > self._last_ids[-1] and _is_ascending(ids))

    def add(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Add sorted products that are not held. Those that belong between the same two are
        inserted at once."""
        begin = 0
        while begin < len(ids):
            number, index = self._place_of(ids[begin])
            held = self._blocks[number].ids
            end = bisect_left(ids, held[index], begin) if index < len(held) else len(ids)
            self._insert(number, index, ids[begin:end], rows[begin:end])
            begin = end

    def replace(self, new: Mapping[str, bytes]) -> None:
        """Set the rows of products that are held."""
        blocks, last_ids = self._blocks, self._last_ids
        for product_id, row in new.items():
            block = blocks[bisect_left(last_ids, product_id)]
            if block.rows is None:
                continue
            block.updates[product_id] = row
            if len(block.updates) > MANY_UPDATES:
                block.rows, block.updates = None, {}

    def remove(self, product_id: str) -> None:
        """Remove a product that is held."""
        number, index = self._place_of(product_id)
        block = self._blocks[number]
        block.updates.pop(product_id, None)
        del block.ids[index]
        if block.rows is not None:
            del block.rows[index]
        self._last_ids[number] = block.ids[-1] if block.ids else ""
        self._starts = None
        if len(block.ids) <= BLOCK_ROWS // 4 and len(self._blocks) > 1:
            self._join(max(1, number))

    def shorten(self, blocks: int) -> None:
        """Drop so many blocks of an order that is not read any more."""
        del self._blocks[-blocks:]

    def _insert(self, number: int, index: int, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        block = self._blocks[number]
        block.ids[index:index] = ids
        if block.rows is not None:
            block.rows[index:index] = rows
        self._last_ids[number] = block.ids[-1]
        self._starts = None
        if len(block.ids) > 2 * BLOCK_ROWS:
            self._split(number)

    def _split(self, number: int) -> None:
        """Split a block into blocks of the usual size; the last one takes the rest."""
        ids, rows = self._blocks[number].ids, self._blocks[number].current_rows(self._by_id)
        begins = range(0, len(ids) - BLOCK_ROWS + 1, BLOCK_ROWS)
        parts = [slice(begin, begin + BLOCK_ROWS) for begin in begins[:-1]]
        parts.append(slice(begins[-1], None))
        self._blocks[number : number + 1] = [_Block(ids[part], rows[part]) for part in parts]
        self._last_ids[number : number + 1] = [ids[part][-1] for part in parts]

    def _join(self, number: int) -> None:
        """Append a block to the one before it."""
        before, block = self._blocks[number - 1 : number + 1]
        ids = before.ids + block.ids
        self._blocks[number - 1 : number + 1] = [_Block(ids, None)]
        self._last_ids[number - 1 : number + 1] = [ids[-1]]
        if len(ids) > 2 * BLOCK_ROWS:
            self._split(number - 1)


def _is_ascending(ids: Sequence[str]) -> bool:
    return all(map(lt, ids, islice(ids, 1, None)))
