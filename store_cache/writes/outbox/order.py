"""Which entry is sent next: of each product one after the other, products in parallel (O1).

Entries in doubt hold nobody up. They come first, once when they begin and once when Central is
back. What is repeated after that comes after the queued ones: a low limit of Central might leave no
room beside repeats that prove nothing. An entry whose try failed by itself waits for its own time.
`now` and times are seconds of a monotonic clock.
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from math import inf

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""An entry that is refused in a way that is not its own, or stays in doubt, waits 1, 2, 4 and so on
up to this."""


def pause_seconds(failures: int, jitter: float) -> float:
    """Return how long an entry waits after so many failures in a row; `jitter` is from 0 to 1."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_SECONDS)
    return longest * (0.5 + jitter / 2)


class SendingOrder:
    """The entries that are to be sent, by key: in the line of their product, or in doubt. An entry
    that `take` has returned is out until it is put in again."""

    def __init__(self) -> None:
        self._lines: dict[str, list[tuple[int, str]]] = {}  # by product: sequences and keys
        self._taken: dict[str, str] = {}  # the products of entries that `take` has returned
        self._busy: set[str] = set()  # these products
        self._queued_due: dict[str, float] = {}  # by key; of those in a line
        self._doubt_due: dict[str, float] = {}  # by key; of those in doubt
        self._heads: list[tuple[float, int, str, str]] = []  # due, sequence, key, product
        self._doubts: list[tuple[float, int, str]] = []

    def __len__(self) -> int:
        return len(self._queued_due) + len(self._doubt_due)

    def put_queued(self, key: str, product_id: str, sequence: int, *, due: float = 0.0) -> None:
        """Put an entry into its product's line, by its sequence."""
        self.remove(key, product_id, sequence)
        self._queued_due[key] = due
        line = self._lines.setdefault(product_id, [])
        insort(line, (sequence, key))
        if line[0] == (sequence, key):
            self._show_head(product_id)

    def put_in_doubt(self, key: str, product_id: str, sequence: int, *, due: float) -> None:
        self.remove(key, product_id, sequence)
        self._doubt_due[key] = due
        heappush(self._doubts, (due, sequence, key))

    def hasten_doubts(self) -> None:
        """Let every entry in doubt come first: Central is back (O8)."""
        doubts = {key: sequence for due, sequence, key in self._doubts if self._is_doubt(due, key)}
        self._doubt_due = dict.fromkeys(doubts, 0.0)
        self._doubts = sorted((0.0, sequence, key) for key, sequence in doubts.items())

    def remove(self, key: str, product_id: str, sequence: int) -> None:
        """Take an entry out that is not to be sent any more, if it is here."""
        self._doubt_due.pop(key, None)
        if self._queued_due.pop(key, None) is not None:
            self._lines[product_id].remove((sequence, key))
            self._show_head(product_id)

    def take(self, now: float) -> str | None:
        """Return the key of the entry to be sent now, or None. If it was in a line, its product is
        busy until `free`."""
        self._drop_stale()
        doubt_due, head_due = self._first_due()
        if doubt_due <= min(head_due, now):
            key = heappop(self._doubts)[2]
            del self._doubt_due[key]
            return key
        if head_due <= now:
            _, sequence, key, product_id = heappop(self._heads)
            del self._queued_due[key]
            self._lines[product_id].remove((sequence, key))
            self._taken[key] = product_id
            self._busy.add(product_id)
            return key
        return None

    def free(self, key: str) -> None:
        """Let the next entry of the product be sent, after the one with this key. Call it once that
        was put back, if it is to be sent again."""
        if (product_id := self._taken.pop(key, None)) is not None:
            self._busy.discard(product_id)
            self._show_head(product_id)

    def due_at(self) -> float:
        """Return when the next entry is due; infinity if there is none."""
        self._drop_stale()
        return min(self._first_due())

    def _first_due(self) -> tuple[float, float]:
        """Return when the first entry in doubt is due, and the first of a line."""
        doubts, heads = self._doubts, self._heads
        return doubts[0][0] if doubts else inf, heads[0][0] if heads else inf

    def _show_head(self, product_id: str) -> None:
        line = self._lines.get(product_id)
        if not line:
            self._lines.pop(product_id, None)
        elif product_id not in self._busy:
            sequence, key = line[0]
            heappush(self._heads, (self._queued_due[key], sequence, key, product_id))

    def _drop_stale(self) -> None:
        """Drop what was removed, is due at another time, or is no head any more."""
        while self._doubts and not self._is_doubt(self._doubts[0][0], self._doubts[0][2]):
            heappop(self._doubts)
        while self._heads and not self._is_head(*self._heads[0]):
            heappop(self._heads)

    def _is_doubt(self, due: float, key: str) -> bool:
        return self._doubt_due.get(key) == due

    def _is_head(self, due: float, sequence: int, key: str, product_id: str) -> bool:
        if product_id in self._busy or self._queued_due.get(key) != due:
            return False
        return self._lines[product_id][0] == (sequence, key)
