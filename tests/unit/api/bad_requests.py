"""Wrong requests and their answers: the cases of a test and of docs/evidence/bad-input.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from tests.harness.clients import TILL_KEY

INVENTORY = "/v1/store/inventory"
WRITES = "/v1/store/writes"
OUTBOX = "/v1/store/outbox"


@dataclass(frozen=True)
class Bad:
    """A till's request that is wrong in one way. `names`: what `details.fields` names."""

    what: str
    target: str
    method: str = "GET"
    body: Any = None
    raw: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 400
    code: str = "invalid_request"
    names: tuple[str, ...] = ()

    @property
    def sent_body(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else orjson.dumps(self.body)

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        """A till's key and JSON, unless the case brings its own."""
        own = {name.lower() for name, _ in self.headers}
        usual = [("X-API-Key", TILL_KEY)]
        if self.body is not None or self.raw is not None:
            usual.append(("Content-Type", "application/json"))
        return [pair for pair in usual if pair[0].lower() not in own] + list(self.headers)


UPDATE = {"productId": "PROD-001", "delta": -2, "version": 6, "idempotencyKey": "order-1"}
KEY = (("Idempotency-Key", "order-1"),)
SETTLEMENT = {"outcome": "not_applied", "reason": "counted"}
OFFICE = (("X-API-Key", "office-secret"),)


def _stream(what: str, query: str, *names: str, headers: tuple[tuple[str, str], ...] = ()) -> Bad:
    return Bad(what, f"{INVENTORY}/stream?{query}", headers=headers, names=names)


def _list(what: str, query: str, *names: str) -> Bad:
    return Bad(what, f"{INVENTORY}?{query}", names=names)


def _post(path: str, what: str, body: Any, *names: str) -> Bad:
    return Bad(what, f"{INVENTORY}/{path}", "POST", body, names=names)


def _update(what: str, *names: str, **changes: Any) -> Bad:
    # What is wrong comes first, so that the table shows it.
    body = {name: item for name, item in (changes | UPDATE | changes).items() if item is not ...}
    return _post("updates", what, body, *names)


def _batch(what: str, updates: Any, *names: str) -> Bad:
    return _post("batch-updates", what, {"updates": updates}, *names)


def _adjust(what: str, body: Any, *names: str, product_id: str = "PROD-001") -> Bad:
    target = f"{INVENTORY}/{product_id}/inventory"
    return Bad(what, target, "PATCH", body, headers=KEY, names=names)


def _settle(what: str, *names: str, **changes: Any) -> Bad:
    body = {name: item for name, item in (SETTLEMENT | changes).items() if item is not ...}
    return Bad(what, f"{WRITES}/order-1/settle", "POST", body, headers=OFFICE, names=names)


def _decide(what: str, method: str, path: str, body: Any, *names: str) -> Bad:
    target = f"{OUTBOX}/01JDQ8Z4M2V0X6T3R9Y1K7B5CD{path}"
    return Bad(what, target, method, body, headers=OFFICE, names=names)


def _json(what: str, raw: bytes) -> Bad:
    return Bad(what, f"{INVENTORY}/updates", "POST", raw=raw, code="invalid_json")


def _media(what: str, *headers: tuple[str, str]) -> Bad:
    return Bad(
        what,
        f"{INVENTORY}/updates",
        "POST",
        UPDATE,
        headers=headers,
        status=415,
        code="unsupported_media_type",
    )


def _key(what: str, status: int, code: str, *keys: str, method: str = "GET", path: str) -> Bad:
    """Keys of the caller's own; an empty one where none is given."""
    headers = tuple(("X-API-Key", key) for key in keys or ("",))
    names = ("X-API-Key",) if len(keys) > 1 else ()
    return Bad(what, path, method, headers=headers, status=status, code=code, names=names)


def _route(what: str, method: str, target: str, status: int, code: str) -> Bad:
    return Bad(what, target, method, status=status, code=code)


BAD_REQUESTS: tuple[Bad, ...] = (
    Bad(
        "a parameter that a dump does not take",
        f"{INVENTORY}/dump?limit=5",
        headers=(("X-API-Key", "office-secret"),),
        names=("limit",),
    ),
    _stream("a beginning that is not known", "from=now", "from"),
    _stream("a list without an id", "productIds=,", "productIds"),
    _stream(
        "two last ids",
        "from=start",
        "Last-Event-ID",
        headers=(("Last-Event-ID", "7f3a52c1:1"), ("Last-Event-ID", "7f3a52c1:2")),
    ),
    Bad("a history of none", f"{INVENTORY}/PROD-001/history?limit=0", names=("limit",)),
    Bad("an offset in a history", f"{INVENTORY}/PROD-001/history?offset=1", names=("offset",)),
    _list("a limit of zero", "limit=0", "limit"),
    _list("a negative limit", "limit=-1", "limit"),
    _list("a limit with a sign", "limit=%2B5", "limit"),
    _list("a limit with a space", "limit=+5", "limit"),
    _list("a limit with a fraction", "limit=5.0", "limit"),
    _list("a limit in other digits", "limit=%D9%A5", "limit"),
    _list("a limit with a leading zero", "limit=05", "limit"),
    _list("an empty limit", "limit=", "limit"),
    _list("a negative offset", "offset=-1", "offset"),
    _list("an offset that is no number", "offset=abc", "offset"),
    _list("an offset with an exponent", "offset=1e3", "offset"),
    _list("offset and after together", "offset=0&after=PROD-001", "after"),
    _list("a parameter twice", "limit=5&limit=6", "limit"),
    _list("two wrong parameters", "limit=0&offset=-1", "limit", "offset"),
    _list("a wrong and an unknown parameter", "limit=0&colour=red", "limit", "colour"),
    _list("an unknown parameter", "colour=red", "colour"),
    _list("a parameter in other case", "Limit=5", "Limit"),
    _list("an unknown order", "sort=name", "sort"),
    _list("an empty search", "search=", "search"),
    _list("a search of more than 200 characters", f"search={'x' * 201}", "search"),
    _list("a search without a word", "search=%3F%21", "search"),
    _list("a search of eleven words", "search=a+b+c+d+e+f+g+h+i+j+k", "search"),
    _list("a search by relevance, and after", "search=milk&after=PROD-001", "after"),
    _list("a barcode with a wrong check digit", "barcode=4006381333932", "barcode"),
    _list("a barcode of nine digits", "barcode=400638133", "barcode"),
    _list("a barcode with a letter", "barcode=400638133393X", "barcode"),
    _list("an empty category", "category=", "category"),
    _list("inStock that is neither true nor false", "inStock=yes", "inStock"),
    _list(
        "several wrong parameters of a search", "sku=&inStock=1&limit=0", "sku", "inStock", "limit"
    ),
    _list("a parameter that is not UTF-8", "after=%FF", "after"),
    _list("a broken percent escape", "after=100%", "after"),
    Bad("a parameter for a product", f"{INVENTORY}/PROD-001?fields=name", names=("fields",)),
    Bad("a product id that is not UTF-8", f"{INVENTORY}/%FF", names=("productId",)),
    Bad("a product id with a bare %", f"{INVENTORY}/100%", names=("productId",)),
    Bad("a parameter for the status", "/v1/store/sync/status?verbose=1", names=("verbose",)),
    _post("lookup", "lookup without productIds and barcodes", {}, "productIds"),
    _post("lookup", "productIds that is no list", {"productIds": "PROD-001"}, "productIds"),
    _post("lookup", "a productId that is no text", {"productIds": ["A", 7]}, "productIds.1"),
    _post("lookup", "201 productIds", {"productIds": [str(n) for n in range(201)]}, "productIds"),
    _post("lookup", "barcodes that are no list", {"barcodes": "4006381333931"}, "barcodes"),
    _post("lookup", "a barcode that is no text", {"barcodes": [4006381333931]}, "barcodes.0"),
    _post(
        "lookup",
        "barcodes with wrong check digits",
        {"barcodes": ["4006381333932", "4006381333931", "1"]},
        *("barcodes.0", "barcodes.2"),
    ),
    _post("lookup", "201 barcodes", {"barcodes": ["4006381333931"] * 201}, "barcodes"),
    _update("no productId", "productId", productId=...),
    _update("an empty productId", "productId", productId=""),
    _update("a productId of one dot", "productId", productId="."),
    _update("a productId of two dots", "productId", productId=".."),
    _update("a productId with a line break", "productId", productId="A\nB"),
    _update("a productId that is a number", "productId", productId=1),
    _update("a delta of zero", "delta", delta=0),
    _update("a delta that is true", "delta", delta=True),
    _update("a delta with a fraction", "delta", delta=-2.0),
    _update("a delta in quotes", "delta", delta="-2"),
    _update("a delta of ten digits", "delta", delta=1_000_000_000),
    _update("a delta of null", "delta", delta=None),
    _update("a version of zero", "version", version=0),
    _update("a version with a fraction", "version", version=6.0),
    _update("a version beyond 2^53 - 1", "version", version=2**53),
    _update("no version", "version", version=...),
    _update("no idempotencyKey", "idempotencyKey", idempotencyKey=...),
    _update("an empty idempotencyKey", "idempotencyKey", idempotencyKey=""),
    _update("an idempotencyKey with ~", "idempotencyKey", idempotencyKey="order~2"),
    _update("an idempotencyKey with a space", "idempotencyKey", idempotencyKey="order 1"),
    _update("an idempotencyKey beyond ASCII", "idempotencyKey", idempotencyKey="ordér"),
    _update("201 characters of idempotencyKey", "idempotencyKey", idempotencyKey="x" * 201),
    _update("an onConflict that is not known", "onConflict", onConflict="park"),
    _update("another store's storeId", "storeId", storeId="store-s2"),
    _update("a reason that is no text", "reason", reason=5),
    _update("three wrong fields", "delta", "version", "reason", delta=0, version=0, reason=5),
    _post("updates", "a body that is a list", [UPDATE]),
    _post("updates", "a body that is a text", "PROD-001"),
    _batch("a batch of none", [], "updates"),
    _batch("a batch of 101", [UPDATE | {"idempotencyKey": str(n)} for n in range(101)], "updates"),
    _batch("a batch that is no list", UPDATE, "updates"),
    _batch("an update that is no object", [7], "updates.0"),
    _batch("a key twice", [UPDATE, UPDATE], "updates.1.idempotencyKey"),
    _batch(
        "wrong fields in two updates",
        [UPDATE | {"delta": 0}, UPDATE | {"idempotencyKey": "b", "version": 0}],
        "updates.0.delta",
        "updates.1.version",
    ),
    _batch("a foreign storeId in an update", [UPDATE | {"storeId": "x"}], "updates.0.storeId"),
    _adjust("no quantityChange", {"reason": "sold"}, "quantityChange"),
    _adjust("a quantityChange of zero", {"quantityChange": 0}, "quantityChange"),
    _adjust("a version, which PATCH has not", {"quantityChange": 1, "version": 6}, "version"),
    _adjust("an id of dots to change", {"quantityChange": 1}, "productId", product_id="%2E%2E"),
    _adjust("an id with a NUL to change", {"quantityChange": 1}, "productId", product_id="a%00"),
    Bad(
        "PATCH without an Idempotency-Key",
        f"{INVENTORY}/PROD-001/inventory",
        "PATCH",
        {"quantityChange": -5},
        names=("Idempotency-Key",),
    ),
    Bad(
        "two Idempotency-Key headers",
        f"{INVENTORY}/PROD-001/inventory",
        "PATCH",
        {"quantityChange": -5},
        headers=KEY * 2,
        names=("Idempotency-Key",),
    ),
    Bad(
        "accept that is not true or false",
        "/v1/store/sync/force?accept=1",
        "POST",
        headers=(("X-API-Key", "office-secret"),),
        names=("accept",),
    ),
    Bad("a state of the outbox that is not known", f"{OUTBOX}?state=lost", names=("state",)),
    Bad("a limit of the outbox of zero", f"{OUTBOX}?limit=0", names=("limit",)),
    Bad(
        "an entry of the outbox that is not known",
        f"{OUTBOX}/01JDQ8Z4M2V0X6T3R9Y1K7B5CD",
        status=404,
        code="outbox_entry_not_found",
    ),
    _decide("a retry without a reason", "POST", "/retry", {}, "reason"),
    _decide(
        "a retry of what was applied",
        "POST",
        "/retry",
        {"reason": "why", "outcome": "applied"},
        "outcome",
    ),
    _decide("a discarding without a reason", "DELETE", "", {"reason": ""}, "reason"),
    Bad("writes that are not in doubt", f"{WRITES}?state=applied", names=("state",)),
    _settle("an outcome that is not known", "outcome", outcome="maybe"),
    _settle("no reason", "reason", reason=...),
    _settle("an empty reason", "reason", reason=""),
    _settle("a reason of 301 characters", "reason", reason="x" * 301),
    Bad(
        "a key to settle that is not UTF-8",
        f"{WRITES}/%FF/settle",
        "POST",
        SETTLEMENT,
        headers=OFFICE,
        names=("idempotencyKey",),
    ),
    Bad(
        "a write to settle that is not known",
        f"{WRITES}/order-9/settle",
        "POST",
        SETTLEMENT,
        headers=OFFICE,
        status=404,
        code="write_not_found",
    ),
    _json("no body", b""),
    _json("a body cut short", b'{"productId": "PROD-'),
    _json("a body with more after its end", b"{}{}"),
    _json("NaN", b'{"delta": NaN}'),
    _json("an infinity", b'{"delta": 1e999}'),
    _json("a name twice", b'{"delta": -1, "delta": -100}'),
    _json("a lone surrogate", rb'{"productId": "\ud800"}'),
    _json("bytes that are not UTF-8", b'{"productId": "\xff"}'),
    _json("3,000 brackets", b"[" * 3_000),
    _json("a byte order mark", b"\xef\xbb\xbf{}"),
    Bad(
        "a huge whole number",
        f"{INVENTORY}/updates",
        "POST",
        raw=orjson.dumps(UPDATE).replace(b"-2", b"9" * 5000),
        code="invalid_json",
    ),
    _media("another type", ("Content-Type", "application/octet-stream")),
    _media("text in another charset", ("Content-Type", "text/plain; charset=latin-1")),
    _media("a form", ("Content-Type", "application/x-www-form-urlencoded")),
    _media("JSON in another charset", ("Content-Type", "application/json; charset=latin-1")),
    _media("a compressed body", ("Content-Encoding", "gzip")),
    Bad(
        "a body of more than 256 KiB",
        f"{INVENTORY}/updates",
        "POST",
        raw=b" " * (256 * 1024 + 1),
        status=413,
        code="payload_too_large",
    ),
    Bad(
        "a body of more than 4,000 names",
        f"{INVENTORY}/updates",
        "POST",
        {f"{number:x}": 1 for number in range(4001)},
        status=413,
        code="payload_too_large",
    ),
    _key("a wrong key", 401, "unauthorized", "guess", path=INVENTORY),
    _key("an empty key", 401, "unauthorized", path=INVENTORY),
    _key("an empty key, and no such route", 401, "unauthorized", path="/v1/other"),
    _key("two keys", 400, "invalid_request", TILL_KEY, TILL_KEY, path=INVENTORY),
    _key(
        "a till's key for an admin call",
        403,
        "forbidden",
        TILL_KEY,
        method="POST",
        path="/v1/store/sync/force",
    ),
    _route("no such route", "GET", "/v1/store/stock", 404, "not_found"),
    _route("a slash at the end", "GET", f"{INVENTORY}/", 404, "not_found"),
    _route("a slash in an id, not encoded", "GET", f"{INVENTORY}/A/1", 404, "not_found"),
    _route("a product not held", "GET", f"{INVENTORY}/PROD-999", 404, "product_not_found"),
    _route("another method", "DELETE", f"{INVENTORY}/PROD-001", 405, "method_not_allowed"),
    _route("GET where only POST is", "GET", "/v1/store/sync/force", 405, "method_not_allowed"),
    _route("TRACE", "TRACE", INVENTORY, 405, "method_not_allowed"),
    _route("CONNECT", "CONNECT", "store:8083", 405, "method_not_allowed"),
    _route("OPTIONS that is no preflight", "OPTIONS", INVENTORY, 405, "method_not_allowed"),
    _route("a method that HTTP has not", "BREW", INVENTORY, 400, "invalid_request"),
    Bad("a path that is not ASCII", f"{INVENTORY}/\xe9"),
    Bad("a header of 10,000 characters", INVENTORY, headers=(("X-Note", "x" * 10_000),)),
    Bad(
        "two ways to say the body's length",
        f"{INVENTORY}/updates",
        "POST",
        raw=b"0\r\n\r\n",
        headers=(("Transfer-Encoding", "chunked"), ("Content-Length", "5")),
    ),
    Bad(
        "a coding that is not understood",
        f"{INVENTORY}/updates",
        "POST",
        raw=b"0\r\n\r\n",
        headers=(("Transfer-Encoding", "gzip, chunked"),),
        names=("Transfer-Encoding",),
    ),
    Bad("a path of 31 slashes", "/" * 31),
)
