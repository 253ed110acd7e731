"""A search index as a process of its own: `store` or `fts5`, then the folder of `write_shelf`.

It builds the index beside the rows of a catalogue, and prints as JSON how long that took in
seconds, the resident memory it took in MB, its longest part in milliseconds, the milliseconds of
each search, for one letter and for two words, and how many products these found. All times are
processor time. A search counts what it finds and returns the first 50 rows.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import string
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from benchmarks.harness.shelf import Shelf
from store_cache.catalogue.search.index import Query, SearchIndex
from store_cache.catalogue.search.words import words_of
from store_cache.model.product import read_product
from tests.harness import proc

ROWS = 50
SEARCHES = 2_000
FIELDS = ("productId", "name", "description", "sku", "category", "barcode")
LETTERS = string.ascii_lowercase + string.digits

Search = Callable[[str], tuple[int, list[bytes]]]
"""Returns how many products were found, and the first rows."""


def write_shelf(folder: Path, products: int) -> None:
    """Write rows and searches, so that making them leaves no free memory in what is measured."""
    shelf = Shelf(products)
    rows = [read_product(product).body for product in shelf.products]
    (folder / "rows").write_bytes(b"\n".join(rows))
    (folder / "searches").write_text("\n".join(shelf.two_words(SEARCHES)), encoding="utf-8")


def build_store(ids: Sequence[str], rows: Sequence[bytes]) -> tuple[Search, float]:
    """Return the search and the milliseconds of the longest part."""
    index = SearchIndex()
    longest = max(_durations(index.load(ids, rows)))

    def search(text: str) -> tuple[int, list[bytes]]:
        found = index.find(Query(text), by_relevance=True)
        return found.total, found.page(0, ROWS)

    return search, longest


def _durations(parts: Iterator[None]) -> Iterator[float]:
    while True:
        began = time.process_time()
        is_done = next(parts, ()) == ()
        yield (time.process_time() - began) * 1000
        if is_done:
            return


def build_fts5(ids: Sequence[str], rows: Sequence[bytes]) -> tuple[Search, float]:
    """SQLite's index without a copy of the texts, without positions, with prefix indexes."""
    database = sqlite3.connect(":memory:")
    database.execute(
        f"CREATE VIRTUAL TABLE found USING fts5({', '.join(FIELDS)}, content='', detail='none', "
        "prefix='1 2 3', tokenize='unicode61 remove_diacritics 2')"
    )
    marks = ", ".join("?" * (len(FIELDS) + 1))
    database.executemany(
        f"INSERT INTO found(rowid, {', '.join(FIELDS)}) VALUES ({marks})", _values(rows)
    )
    database.execute("INSERT INTO found(found) VALUES ('optimize')")
    database.commit()

    def search(text: str) -> tuple[int, list[bytes]]:
        asked = " ".join(f'"{word.decode()}"*' for word in words_of(text))
        query = "SELECT {} FROM found WHERE found MATCH ?"
        (total,) = database.execute(query.format("count(*)"), (asked,)).fetchone()
        page = database.execute(query.format("rowid") + f" ORDER BY rowid LIMIT {ROWS}", (asked,))
        return total, [rows[number] for (number,) in page]

    return search, 0.0


def _values(rows: Sequence[bytes]) -> Iterator[tuple[object, ...]]:
    for number, row in enumerate(rows):
        product = orjson.loads(row)
        yield number, *(product.get(field, "") for field in FIELDS)


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    rows = (folder / "rows").read_bytes().split(b"\n")
    searches = (folder / "searches").read_text(encoding="utf-8").split("\n")
    ids = [orjson.loads(row)["productId"] for row in rows]
    gc.freeze()  # as the store does with its catalogue
    before, began = proc.resident_bytes(os.getpid()), time.process_time()
    search, longest = {"store": build_store, "fts5": build_fts5}[kind](ids, rows)
    built = time.process_time() - began
    taken = (proc.resident_bytes(os.getpid()) - before) / 1e6
    found = {
        "seconds": built,
        "MB": taken,
        "longest part ms": longest,
        "letters": _timed(search, LETTERS),
        "words": _timed(search, searches),
        "found": [search(text)[0] for text in (*LETTERS, *searches)],
    }
    sys.stdout.write(f"{orjson.dumps(found).decode()}\n")
    sys.stdout.flush()


def _timed(search: Search, texts: Iterable[str]) -> list[float]:
    took = []
    for text in texts:
        began = time.process_time()
        search(text)
        took.append((time.process_time() - began) * 1000)
    return took


if __name__ == "__main__":
    main()
