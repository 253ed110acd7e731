"""A small Central without HTTP: its products, and a feed of what happened to them.

Events are published up to a tenth of a second late, so their offsets may be out of order. Each
product carries the number of its incarnation, so that a test can tell an old one from a new one
where the store cannot.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from store_cache.model.event import AnyEvent, read_event
from store_cache.model.product import Row, read_product
from store_cache.model.stock import StockAnswer

NAMES = {
    "create": "product_created",
    "update": "inventory_updated",
    "delete": "product_deleted",
    "garble": "product_frobnicated",
}


class PretendCentral:
    def __init__(self) -> None:
        self.products: dict[str, dict[str, Any]] = {}
        self.feed: list[AnyEvent] = []
        self._lives: Counter[str] = Counter()
        self._unpublished: list[tuple[float, str, dict[str, Any]]] = []
        self._stock = 0

    def does(self, deed: str, product_id: str, *, late_until: float = 0.0) -> bool:
        """Create, update or delete a product, or garble the event of an update; False where that
        makes no sense now."""
        if (deed == "create") == (product_id in self.products):
            return False
        product = self._after(deed, product_id)
        if deed == "delete":
            del self.products[product_id]
        else:
            self.products[product_id] = product
        self._unpublished.append((late_until, NAMES[deed], product))
        return True

    def _after(self, deed: str, product_id: str) -> dict[str, Any]:
        self._lives[product_id] += deed == "create"
        self._stock += 1
        before = self.products.get(product_id, {"version": 0})
        return {
            "productId": product_id,
            "name": "Cup",
            "available": self._stock,
            "version": before["version"] + 1,
            "life": self._lives[product_id],
        }

    def sell(self, product_id: str, version: int, *, late_until: float = 0.0) -> StockAnswer | None:
        """Apply a write that names the right version; None: refused."""
        if product_id not in self.products or self.products[product_id]["version"] != version:
            return None
        self.does("update", product_id, late_until=late_until)
        available = self.products[product_id]["available"]
        return StockAnswer(product_id, version, version + 1, available)

    def publish(self, now: float) -> None:
        """Put what is due on the feed, in the order in which it became due."""
        due = sorted((e for e in self._unpublished if e[0] <= now), key=lambda e: e[0])
        self._unpublished = [e for e in self._unpublished if e[0] > now]
        for _, name, product in due:
            event = {
                "offset": len(self.feed),
                "eventType": name,
                "productId": product["productId"],
                "version": product["version"],
                "data": product,
            }
            self.feed.append(read_event(event))

    def read(self, product_id: str) -> Row | None:
        product = self.products.get(product_id)
        return None if product is None else read_product(product)

    def life_of(self, product_id: str) -> int:
        """Number of the product's present or last life."""
        return self._lives[product_id]

    def rows(self) -> dict[str, bytes]:
        return {i: read_product(product).body for i, product in sorted(self.products.items())}
