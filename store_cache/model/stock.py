"""The stock of a product after an applied write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StockAnswer:
    """Central's answer to an applied write, to be shown in the catalogue (W6).

    `sent_version`: that the write was sent for. `last_updated`: RFC 3339 as Central sent it, or
    None if it sent none. `age_seconds`: Central may have applied the write so long ago, since it
    was first sent then. `generation`: the label of the feed that the store followed then; empty if
    it followed none, None if that is not known.
    """

    product_id: str
    sent_version: int
    new_version: int
    new_quantity: int
    last_updated: str | None = None
    age_seconds: float = 0.0
    generation: str | None = None
