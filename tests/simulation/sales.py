"""What a till was answered for one key, and what must be true of it at Central (promise 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.simulation.history import History

STORE = "store-s1"
MOST_ATTEMPTS = 6

REFUSAL_SECONDS = 600.0
"""A refusal is remembered so long, and judged anew after that (W1)."""

TOLD = ("productId", "newVersion", "newQuantity", "lastUpdated")
"""What a repeat must be answered just so."""


@dataclass
class Sale:
    """`replacements`: how often Central had been replaced when it was first sent."""

    key: str
    product_id: str
    delta: int
    version: int | None
    replacements: int
    final: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    """The first final answer, and `final_at` when it came."""
    final_at: float = 0.0
    words: list[str] = field(default_factory=list)
    is_open: bool = False
    """Whether a request has not been answered."""
    is_forgotten: bool = False
    """Whether the store died while its disk failed, and may have lost its record (D5)."""

    def body(self) -> dict[str, Any]:
        return {
            "productId": self.product_id,
            "delta": self.delta,
            "version": self.version,
            "idempotencyKey": self.key,
        }

    def lost(self) -> None:
        self.words.append("lost")

    def sent(self) -> None:
        self.is_open = True

    def store_died_degraded(self) -> None:
        """Note that its record may be lost: a repeat may count as the first attempt."""
        self.is_forgotten = True

    def note_answer(self, status: int, result: dict[str, Any], now: float) -> str:
        """Note an answer; return what is wrong with it, if anything. `now`: monotonic seconds."""
        self.is_open = False
        if "error" in result:
            self.words.append(result["error"]["code"])
            return ""
        final = "applied" if result.get("applied") else f"refused {result.get('errorType')}"
        self.words.append(final)
        if self.final == final == "applied" and not self.is_forgotten:
            changed = {name for name in TOLD if result.get(name) != self.result.get(name)}
            return f"key {self.key}: {result} after {self.result}" if changed else ""
        before, self.final = self.final, final
        is_due = before.startswith("refused") and now - self.final_at >= REFUSAL_SECONDS
        if not before or is_due:
            self.result, self.final_at = result, now
        if before and before != final and not self.is_forgotten and not is_due:
            return f"key {self.key} was {before}, and then {final} ({status}): {self.words}"
        return ""

    def problem(self, history: History) -> str:
        """Return what is wrong at Central in the end, if anything."""
        if history.replacements != self.replacements or self.is_forgotten:
            return ""
        names = [f"{STORE}-{self.key}"]
        names += [f"{names[0]}~{number}" for number in range(2, MOST_ATTEMPTS)]
        applied = sum(history.ever_applied[name] for name in names)
        unsent = {"central_unavailable", "product_not_found", "cache_not_ready"}
        wrong = (
            applied > 1
            or (self.final == "applied" and applied != 1)
            or (self.final.startswith("refused") and applied)
            or (not self.final and not self.is_open and applied and set(self.words) <= unsent)
        )
        return f"key {self.key} was applied {applied} times: {self.words}" if wrong else ""


@dataclass
class Order:
    """One request of a till, as it is sent and repeated."""

    sales: list[Sale]
    method: str
    path: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    is_counted: bool = False
    """Whether its sales are counted as sent."""
