"""What a till was answered for one key, and what must be true of it at Central (promise 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.history import History

STORE = "store-s1"

REFUSAL_SECONDS = 600.0
"""A refusal is remembered so long by the shop's clock, and judged anew after that (W1)."""

GIVEN_UP = "refused discarded"
BY_PERSON = (GIVEN_UP, "refused settled_not_applied")
"""How a write that was queued may end without having been applied."""

TOLD = ("productId", "newVersion", "newQuantity", "lastUpdated")
"""What a repeat must be answered just so."""


@dataclass
class Sale:
    """`replacements`: how often Central had been replaced when it was first sent.

    `now` is in seconds that the shop's clock has gone forward, jumps included: what it remembers
    for a time, it may have forgotten by then.
    """

    key: str
    product_id: str
    delta: int
    version: int | None
    replacements: int
    final: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    """The first final answer."""
    asked_at: float | None = None
    """When it was first sent, of the sendings that the final answer may be from."""
    sent_at: float = 0.0
    """When it was last sent."""
    words: list[str] = field(default_factory=list)
    entry_id: str = ""
    """Of the outbox, once a till was told that it is queued (202)."""
    decided: set[str] = field(default_factory=set)
    """What a person has asked this node to do about its entry in the outbox: `retries`, `settles`
    or `discards`. That counts at this node alone."""
    is_open: bool = False
    """Whether a request has not been answered."""
    is_forgotten: bool = False
    """Whether the store may lack its record: it died or started while its disk failed (D5), or its
    files were damaged."""
    end: str = ""
    """How its entry in the outbox ended."""
    knows_other_node: bool = False
    """Whether a person gave its entry up because the other node had it applied."""
    may_count_anew: bool = False
    """Whether the store may have lost the answer that it gave: a repeat in doubt counts as pending,
    and one that cannot reach Central is queued."""

    def body(self) -> dict[str, Any]:
        return {
            "productId": self.product_id,
            "delta": self.delta,
            "version": self.version,
            "idempotencyKey": self.key,
        }

    def lost(self) -> None:
        self.words.append("lost")

    def sent(self, now: float) -> None:
        self.is_open = True
        self.sent_at = now
        if self.asked_at is None:
            self.asked_at = now

    def store_died_degraded(self) -> None:
        """Note that its record may be lost: a repeat may count as the first attempt."""
        self.is_forgotten = True

    def note_answer(self, status: int, result: dict[str, Any], now: float) -> str:
        """Note an answer; return what is wrong with it, if anything."""
        self.is_open = False
        if "error" in result:
            self._note_error(result["error"], now)
            return ""
        if result.get("queued"):
            return self._note_queued(result["outboxId"], now)
        final = "applied" if result.get("applied") else f"refused {result.get('errorType')}"
        self.words.append(final)
        is_anew = self.is_judged_anew
        if is_anew and self.final == "applied" and final in ("applied", GIVEN_UP):
            return ""
        self.may_count_anew = False
        if self.final == final == "applied" and not self.is_forgotten:
            changed = {name for name in TOLD if result.get(name) != self.result.get(name)}
            return f"key {self.key}: {result} after {self.result}" if changed else ""
        if self.entry_id and final not in ("applied", *BY_PERSON) and not self.is_forgotten:
            return f"key {self.key} was queued, and then {final} ({status}): {self.words}"
        is_due = self.is_due(now)
        before, self.final = self.final, final
        if is_due and result != self.result:  # else it may still be the answer of before
            self.asked_at = self.sent_at
        if not before or is_due or is_anew:
            self.result = result
        if before and before != final and not (self.is_forgotten or is_due or is_anew):
            return f"key {self.key} was {before}, and then {final} ({status}): {self.words}"
        return ""

    def _note_error(self, error: dict[str, Any], now: float) -> None:
        """Note an error. If this key is in doubt, the store has forgotten its refusal."""
        self.words.append(error["code"])
        details = error.get("details", {})
        in_doubt = details.get("idempotencyKeys", [details.get("idempotencyKey")])
        if error["code"] == "central_timeout" and self.key in in_doubt and self.is_due(now):
            self.final, self.asked_at = "", self.sent_at

    def _note_queued(self, entry_id: str, now: float) -> str:
        self.words.append("queued")
        if self.is_due(now):
            self.final = ""
        before, self.entry_id = self.entry_id, entry_id
        if self.is_forgotten:
            return ""
        if self.final and not self.may_count_anew:
            return f"key {self.key} was {self.final}, and then queued: {self.words}"
        is_other = before not in ("", entry_id)
        return f"key {self.key} is entry {entry_id}, and was {before}" if is_other else ""

    def is_due(self, now: float) -> bool:
        """Whether the store may have forgotten the refusal that it answered."""
        is_old = self.asked_at is not None and now - self.asked_at >= REFUSAL_SECONDS
        return self.final.startswith("refused") and is_old

    @property
    def is_judged_anew(self) -> bool:
        """Whether the outcome may be another one than the answer that the store has lost: of a
        repeat that it has queued, and sent with another version, or a person has decided about."""
        is_queued = self.may_count_anew and bool(self.entry_id)
        return is_queued and (self.version is None or bool(self.decided))

    @property
    def is_sent_anew(self) -> bool:
        """Whether no answer came to a repeat that the store may have judged anew."""
        return self.is_open and self.is_due(self.sent_at)

    def at_other_node(self) -> Sale:
        """Return the same sale as another node knows it: not yet."""
        return Sale(self.key, self.product_id, self.delta, self.version, self.replacements)

    def times_applied(self, counts: Mapping[str, int]) -> int:
        """Return how often it was applied, under whatever derived key. `counts`: by key."""
        name = f"{STORE}-{self.key}"
        return sum(count for key, count in counts.items() if key.partition("~")[0] == name)

    def problem(self, history: History) -> str:
        """Return what is wrong at Central in the end, if anything."""
        if self.is_forgotten:
            return ""
        if history.replacements != self.replacements:
            is_certain = not (history.times_forgotten or history.disturbed)
            times = self.times_applied(history.applied) if is_certain else 0
            return f"key {self.key} was applied {times} times after all" if times > 1 else ""
        applied = self.times_applied(history.ever_applied)
        unsent = {"central_unavailable", "product_not_found", "cache_not_ready"}
        may_be_anew = self.is_judged_anew or self.is_sent_anew
        wrong = (
            applied > 1
            or (self.final == "applied" and applied != 1)
            or (self.final.startswith("refused") and applied and not may_be_anew)
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
    node: int = 0
    """The number of the node that it was placed at."""
    elsewhere: list[Sale] = field(default_factory=list)
    """Its sales as the other node knows them, once it was sent there."""
