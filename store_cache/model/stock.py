"""What Central says that an applied write made of a product."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StockAnswer:
    """What Central says that an applied write made of the product; laid over the catalogue (W6).

    `last_updated` is RFC 3339 as Central sent it, or None where it sent none.
    """

    product_id: str
    sent_version: int
    new_version: int
    new_quantity: int
    last_updated: str | None = None
