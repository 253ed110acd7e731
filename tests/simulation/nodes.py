"""What must be true of a shop with two nodes in the end (docs/two-nodes.md).

Each node alone keeps the promises of any store, which the checks of each hold it to. Here are those
that span both: nothing is applied twice, and what is applied or refused is so for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.simulation.history import History
from tests.simulation.outbox import SalesBook
from tests.simulation.sales import BY_PERSON, TOLD, Sale

UNSENT = frozenset({"central_unavailable", "product_not_found", "cache_not_ready", "outbox_full"})
"""What a till is told of a write that was not sent."""


def sales_of_nodes(books: Sequence[SalesBook]) -> dict[str, list[Sale]]:
    """Return each sale as the nodes that it was sent to know it, by its key."""
    found: dict[str, list[Sale]] = {}
    for book in books:
        for sale in book.sales:
            found.setdefault(sale.key, []).append(sale)
    return found


def problems(books: Sequence[SalesBook], history: History) -> Iterator[str]:
    """Return what the nodes say, and what Central's ledger says otherwise."""
    for key, sales in sales_of_nodes(books).items():
        times = sales[0].times_applied(history.ever_applied)
        if problem := _problem(sales, times):
            told = [f"{sale.words} {sale.final} {sale.end}" for sale in sales]
            yield f"key {key} {problem}: {told}"


def _problem(sales: Sequence[Sale], times: int) -> str:
    if times > 1:
        return f"was applied {times} times by two nodes"
    if any("applied" in (sale.final, sale.end) for sale in sales) and not times:
        return "was never applied, as a node says"
    if times and all(map(_is_not_applied, sales)):
        return "was applied, and no node knows of it"
    has_version, decided = sales[0].version is not None, {did for s in sales for did in s.decided}
    has_one_key = has_version and "retries" not in decided
    if times and has_one_key and any(map(_is_refused, sales)):
        return "was applied after Central had refused it"
    answers = [_told(sale) for sale in sales if sale.final == "applied" and sale.result]
    if has_version and not decided and any(answer != answers[0] for answer in answers):
        return f"was answered {answers}"
    return ""


def _told(sale: Sale) -> dict[str, Any]:
    return {name: sale.result.get(name) for name in TOLD}


def _is_not_applied(sale: Sale) -> bool:
    """Whether a node takes the sale for not applied, and nothing of it is open there."""
    if sale.is_open or sale.knows_other_node or sale.final == "applied":
        return False
    if sale.end:
        return sale.end == "discarded"
    if sale.is_forgotten and (sale.entry_id or sale.decided):
        return False  # the node has lost its entry with its disk, which may have been applied
    return _is_refused(sale) or (not sale.entry_id and set(sale.words) <= UNSENT)


def _is_refused(sale: Sale) -> bool:
    return sale.final.startswith("refused") and sale.final not in BY_PERSON
