"""Rows in the order of their ids, in blocks.

Knows: where a row is by its id and by its number, and how to give a run of rows by slices alone:
a page needs no look-up of each of its products, which in a large catalogue is a miss of the
processor's caches each, and nearly all that a page would cost.
Refuses to know: what is in a row, and what else is known of a product.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice
from operator import lt

BLOCK_ROWS = 1_000
"""Rows of a block as it is filled. It is split at twice as many, and joined with another one below
a quarter: so moving a block's rows for an insertion, and counting the blocks anew for the page
after it, cost about the same at a million products."""

MANY_LATE = 100
"""With more late rows than this a block lets go of its list of rows, which the next read makes anew
of a look-up each: cheaper than to look for the place of every late one, and the old rows go."""


class _Block:
    """A run of ids, and their rows for whoever reads a run of them. `late`: rows that replace some
    of `rows`, which are put there by the next read: no acknowledgement has to wait for that.
    `rows` is None where nearly all would have to be."""

    __slots__ = ("ids", "late", "rows")

    def __init__(self, ids: list[str], rows: list[bytes] | None) -> None:
        self.ids = ids
        self.rows = rows
        self.late: dict[str, bytes] = {}

    def let_go(self) -> None:
        self.rows = None
        self.late = {}

    def settled(self, by_id: Mapping[str, bytes]) -> list[bytes]:
        """The rows, all in their places."""
        if self.rows is None:
            self.rows = list(map(by_id.__getitem__, self.ids))
        elif self.late:
            for product_id, row in self.late.items():
                self.rows[bisect_left(self.ids, product_id)] = row
            self.late = {}
        return self.rows


class SortedRows:
    """The rows of `by_id` in code point order of their ids; whoever changes one tells the other.
    There is always a block; only a single one is empty."""

    def __init__(self, by_id: Mapping[str, bytes]) -> None:
        self._by_id = by_id
        self._blocks = [_Block([], [])]
        self._last_ids = [""]
        self._starts: list[int] | None = None  # each block's first offset; None: count anew

    # -- reads -----------------------------------------------------------------------------

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Rows `offset` to `offset + limit`."""
        starts = self._starts or self.count()
        block = bisect_right(starts, offset) - 1
        return self._rows(block, offset - starts[block], limit)

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """The rows behind `product_id` (which need not be there), and the first one's offset."""
        block, place = self._place_after(product_id)
        starts = self._starts or self.count()
        return starts[block] + place, self._rows(block, place, limit)

    def after(self, product_id: str, limit: int) -> tuple[list[str], list[bytes]]:
        """Ids and rows behind `product_id`."""
        block, place = self._place_after(product_id)
        return self._ids(block, place, limit), self._rows(block, place, limit)

    def ids(self) -> Iterator[str]:
        return chain.from_iterable(block.ids for block in self._blocks)

    def among(self, ids: Sequence[str]) -> set[str] | None:
        """Those of `ids` that are there, by what lies between the first and the last one; None
        where they are not in order, or too much does."""
        between = self._between(ids)
        return None if between is None else set(between).intersection(ids)

    def own(self, ids: Sequence[str]) -> Sequence[str]:
        """The same, but those that are there as the very objects that they are there, where that
        is as easily told."""
        between = self._between(ids) or ()
        there = dict(zip(between, between, strict=True))
        return list(map(there.get, ids, ids)) if there else ids

    def _between(self, ids: Sequence[str]) -> list[str] | None:
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
        """Each block's first offset, which reads need after rows came or went."""
        lengths = (len(block.ids) for block in self._blocks[:-1])
        self._starts = list(accumulate(lengths, initial=0))
        return self._starts

    def _place_after(self, product_id: str) -> tuple[int, int]:
        block = min(bisect_right(self._last_ids, product_id), len(self._blocks) - 1)
        return block, bisect_right(self._blocks[block].ids, product_id)

    def _rows(self, block: int, place: int, limit: int) -> list[bytes]:
        run = self._blocks[block].settled(self._by_id)[place : place + limit]
        while len(run) < limit and (block := block + 1) < len(self._blocks):
            run += self._blocks[block].settled(self._by_id)[: limit - len(run)]
        return run

    def _ids(self, block: int, place: int, limit: int) -> list[str]:
        run = self._blocks[block].ids[place : place + limit]
        while len(run) < limit and (block := block + 1) < len(self._blocks):
            run += self._blocks[block].ids[: limit - len(run)]
        return run

    # -- changes ---------------------------------------------------------------------------

    def is_behind(self, ids: Sequence[str]) -> bool:
        """Whether these are in order, each once, and behind all that are there."""
        return not ids or (ids[0] > self._last_ids[-1] and _is_ascending(ids))

    def add(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Take products that are not there, in order of their ids: as many at once as have their
        place between the same two that are."""
        begin = 0
        while begin < len(ids):
            number, place = self._place_of(ids[begin])
            there = self._blocks[number].ids
            end = bisect_left(ids, there[place], begin) if place < len(there) else len(ids)
            self._insert(number, place, ids[begin:end], rows[begin:end])
            begin = end

    def replace(self, new: Mapping[str, bytes]) -> None:
        """Set the rows of products that are there."""
        blocks, last_ids = self._blocks, self._last_ids
        for product_id, row in new.items():
            block = blocks[bisect_left(last_ids, product_id)]
            if block.rows is None:
                continue
            block.late[product_id] = row
            if len(block.late) > MANY_LATE:
                block.let_go()

    def _place_of(self, product_id: str) -> tuple[int, int]:
        """Where the product is, or would be."""
        number = min(bisect_left(self._last_ids, product_id), len(self._blocks) - 1)
        return number, bisect_left(self._blocks[number].ids, product_id)

    def _insert(self, number: int, place: int, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        block = self._blocks[number]
        block.ids[place:place] = ids
        if block.rows is not None:
            block.rows[place:place] = rows
        self._last_ids[number] = block.ids[-1]
        self._starts = None
        if len(block.ids) > 2 * BLOCK_ROWS:
            self._split(number)

    def remove(self, product_id: str) -> None:
        """Let go of a product that is there."""
        number, place = self._place_of(product_id)
        block = self._blocks[number]
        block.late.pop(product_id, None)
        del block.ids[place]
        if block.rows is not None:
            del block.rows[place]
        self._last_ids[number] = block.ids[-1] if block.ids else ""
        self._starts = None
        if len(block.ids) <= BLOCK_ROWS // 4 and len(self._blocks) > 1:
            self._join(max(1, number))

    def _split(self, number: int) -> None:
        """Into blocks of the usual size; the last one takes what is left over."""
        ids, rows = self._blocks[number].ids, self._blocks[number].settled(self._by_id)
        begins = range(0, len(ids) - BLOCK_ROWS + 1, BLOCK_ROWS)
        parts = [slice(begin, begin + BLOCK_ROWS) for begin in begins[:-1]]
        parts.append(slice(begins[-1], None))
        self._blocks[number : number + 1] = [_Block(ids[part], rows[part]) for part in parts]
        self._last_ids[number : number + 1] = [ids[part][-1] for part in parts]

    def _join(self, number: int) -> None:
        """Put a block behind the one before it."""
        before, block = self._blocks[number - 1 : number + 1]
        ids = before.ids + block.ids
        self._blocks[number - 1 : number + 1] = [_Block(ids, None)]
        self._last_ids[number - 1 : number + 1] = [ids[-1]]
        if len(ids) > 2 * BLOCK_ROWS:
            self._split(number - 1)

    def shorten(self, blocks: int) -> None:
        """Let go of that many blocks, of an order that is not read any more."""
        del self._blocks[-blocks:]


def _is_ascending(ids: Sequence[str]) -> bool:
    return all(map(lt, ids, islice(ids, 1, None)))
