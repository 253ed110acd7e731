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
from typing import TypeVar

T = TypeVar("T", str, bytes)

BLOCK_ROWS = 1_000
"""Rows of a block as it is filled. It is split at twice as many, and joined with another one below
a quarter: so moving a block's rows for an insertion, and counting the blocks anew for the page
after it, cost about the same at a million products."""

LATE_ROWS = 1_000
"""As many new rows of known products may wait for the read that needs them in order: putting them
there costs a microsecond or two each, which no acknowledgement has to wait for."""


class OrderedRows:
    """Rows by id, in code point order. There is always a block; only a single one is empty."""

    def __init__(self) -> None:
        self._ids: list[list[str]] = [[]]
        self._rows: list[list[bytes]] = [[]]
        self._last_ids = [""]
        self._late: dict[str, bytes] = {}  # rows that replace those in the blocks
        self._starts: list[int] | None = None  # each block's first offset; None: count anew

    # -- reads -----------------------------------------------------------------------------

    def page(self, offset: int, limit: int) -> list[bytes]:
        """Rows `offset` to `offset + limit`."""
        if self._late:
            self._settle()
        starts = self._starts or self.count()
        block = bisect_right(starts, offset) - 1
        return _run(self._rows, block, offset - starts[block], limit)

    def page_after(self, product_id: str, limit: int) -> tuple[int, list[bytes]]:
        """The rows behind `product_id` (which need not be there), and the first one's offset."""
        block, place = self._place_after(product_id)
        starts = self._starts or self.count()
        return starts[block] + place, _run(self._rows, block, place, limit)

    def after(self, product_id: str, limit: int) -> tuple[list[str], list[bytes]]:
        """Ids and rows behind `product_id`."""
        block, place = self._place_after(product_id)
        return _run(self._ids, block, place, limit), _run(self._rows, block, place, limit)

    def ids(self) -> Iterator[str]:
        return chain.from_iterable(self._ids)

    def count(self) -> list[int]:
        """Each block's first offset, which reads need after rows came or went."""
        lengths = map(len, self._ids[:-1])
        self._starts = list(accumulate(lengths, initial=0))
        return self._starts

    def _place_after(self, product_id: str) -> tuple[int, int]:
        self._settle()
        block = min(bisect_right(self._last_ids, product_id), len(self._ids) - 1)
        return block, bisect_right(self._ids[block], product_id)

    # -- changes ---------------------------------------------------------------------------

    def is_behind(self, ids: Sequence[str]) -> bool:
        """Whether these are in order, each once, and behind all that are there."""
        return not ids or (ids[0] > self._last_ids[-1] and all(map(lt, ids, islice(ids, 1, None))))

    def extend(self, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        """Take rows of which `is_behind` is true."""
        if not ids:
            return
        room = max(0, BLOCK_ROWS - len(self._ids[-1]))
        self._ids[-1] += ids[:room]
        self._rows[-1] += rows[:room]
        for begin in range(room, len(ids), BLOCK_ROWS):
            self._ids.append(list(ids[begin : begin + BLOCK_ROWS]))
            self._rows.append(list(rows[begin : begin + BLOCK_ROWS]))
        grown = len(self._last_ids) - 1
        self._last_ids[grown:] = [block[-1] for block in self._ids[grown:]]
        self._starts = None

    def replace(self, new: Mapping[str, bytes]) -> None:
        """Set the rows of products that are there."""
        self._late.update(new)
        if len(self._late) > LATE_ROWS:
            self._settle()

    def _settle(self) -> None:
        last_ids, ids, rows = self._last_ids, self._ids, self._rows
        for product_id, row in self._late.items():
            block = bisect_left(last_ids, product_id)
            rows[block][bisect_left(ids[block], product_id)] = row
        self._late.clear()

    def insert(self, product_id: str, row: bytes) -> None:
        """Take a product that is not there."""
        block = min(bisect_left(self._last_ids, product_id), len(self._ids) - 1)
        ids = self._ids[block]
        place = bisect_left(ids, product_id)
        ids.insert(place, product_id)
        self._rows[block].insert(place, row)
        self._last_ids[block] = ids[-1]
        self._starts = None
        if len(ids) > 2 * BLOCK_ROWS:
            self._split(block)

    def remove(self, product_id: str) -> None:
        """Let go of a product that is there."""
        self._late.pop(product_id, None)
        block = bisect_left(self._last_ids, product_id)
        ids = self._ids[block]
        place = bisect_left(ids, product_id)
        del ids[place], self._rows[block][place]
        self._last_ids[block] = ids[-1] if ids else ""
        self._starts = None
        if len(ids) <= BLOCK_ROWS // 4 and len(self._ids) > 1:
            self._join(max(1, block))

    def _split(self, block: int) -> None:
        ids, rows = self._ids[block], self._rows[block]
        self._ids[block : block + 1] = ids[:BLOCK_ROWS], ids[BLOCK_ROWS:]
        self._rows[block : block + 1] = rows[:BLOCK_ROWS], rows[BLOCK_ROWS:]
        self._last_ids.insert(block, self._ids[block][-1])

    def _join(self, block: int) -> None:
        """Put a block behind the one before it."""
        self._ids[block - 1] += self._ids.pop(block)
        self._rows[block - 1] += self._rows.pop(block)
        del self._last_ids[block - 1]
        self._last_ids[block - 1] = self._ids[block - 1][-1]
        if len(self._ids[block - 1]) > 2 * BLOCK_ROWS:
            self._split(block - 1)

    def shorten(self, blocks: int) -> None:
        """Let go of that many blocks, of an order that is not read any more."""
        del self._ids[-blocks:], self._rows[-blocks:]


def _run(blocks: list[list[T]], block: int, place: int, limit: int) -> list[T]:
    run = blocks[block][place : place + limit]
    while len(run) < limit and (block := block + 1) < len(blocks):
        run += blocks[block][: limit - len(run)]
    return run
