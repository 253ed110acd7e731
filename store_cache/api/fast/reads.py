"""The commonest reads, answered in front of aiohttp: one product, one page, one basket.

    bytes that came on a connection                           are answered
    one whole, plain request of the grammar below, alone      here, by one write
    anything else, and whatever needs the plain path          by aiohttp, untouched

The answers are those of `handlers.reads`, byte for byte. Errors are not given here, but for the one
of a client that exceeds its limit: refusing it must not cost more than answering. If a request is
incomplete, wrong, refused, or not understood, or there is no catalogue, `answer` returns None, has
changed nothing, and aiohttp gets all the bytes.

This exists for speed alone (docs/architecture.md has the measured gain). With `FAST_READS=false`
the plain path answers everything.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from hmac import compare_digest
from time import perf_counter
from typing import NamedTuple

from aiohttp import web

from store_cache.api import middleware
from store_cache.api.answers import head_of, http_date
from store_cache.api.auth import Authenticator, Caller
from store_cache.api.content import bodies
from store_cache.api.content.bodies import Content
from store_cache.api.content.entity_tags import matches
from store_cache.api.content.freshness import Freshness
from store_cache.api.content.models import (
    LARGEST_LIMIT,
    MOST_LOOKUPS,
    PAGE_PARAMETERS,
    read_page_query,
)
from store_cache.api.content.paths import decode, parse_query
from store_cache.api.cors import Cors
from store_cache.api.metrics.counts import LOOKUP, PAGE, PRODUCT, QUICK_SECONDS, Counts, ReadTally
from store_cache.api.metrics.histogram import Histograms
from store_cache.api.parts import StoreParts
from store_cache.api.problems import InvalidRequest, render
from store_cache.api.request_ids import is_sane, new_request_id
from store_cache.api.request_rates import RatePolicy
from store_cache.catalogue.catalogue import Catalogue
from store_cache.writes.outbox.pending import PendingStock

# Ids and queries of unreserved characters (RFC 3986, 2.3) and percent-encodings.
_REQUEST = re.compile(
    rb"(?:GET /v1/store/inventory"
    rb"(?:/(?!stream |dump )(?P<product>[A-Za-z0-9_~%-][A-Za-z0-9._~%-]{0,199})"
    rb"|(?:\?(?P<page>[A-Za-z0-9._~%=&-]{1,250}))?)"
    rb"|POST /v1/store/inventory/(?P<basket>lookup)) HTTP/1\.1\r\n"
)
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-"
_FIELD = re.compile(rb"([A-Za-z-]{1,40}):[ ]?([!-~](?:[ -~]*[!-~])?)")
_ANYTHING = re.compile(rb"[ -~]*")
# Fields that only change errors, which are not given here, and the log. Browsers send the later
# ones, and proxies the last.
_IGNORED = (
    *(b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"referer"),
    *(b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"),
    *(b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform"),
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"),
)
# The fields that are understood, with the values that are. Others make aiohttp answer.
_FIELDS = {
    b"host": re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"),
    b"x-api-key": re.compile(rb"[!-~]{1,200}"),
    b"if-none-match": _ANYTHING,
    b"x-request-id": _ANYTHING,
    b"origin": _ANYTHING,
    b"connection": re.compile(rb"(?i:keep-alive)"),
} | dict.fromkeys(_IGNORED, _ANYTHING)
_BODY_FIELDS = _FIELDS | {
    b"content-type": re.compile(rb"application/json"),
    b"content-length": re.compile(rb"[1-9][0-9]{0,4}"),
}
_LONGEST_HEAD = 2048
# The commonest query, read in one step; `parse_query` reads others.
_OFFSET_AND_LIMIT = re.compile(rb"offset=(0|[1-9][0-9]{0,8})&limit=([1-9][0-9]{0,5})")
# A list of ids as JSON is usually written: compact, or with a space after colons and commas.
_LIST_BEGINS = (b'{"productIds":["', b'{"productIds": ["')
_COMPACT, _SPACED = b'","', b'", "'
_LIST_ENDS = b'"]}'


@dataclass(frozen=True, slots=True)
class _Fields:
    """What the header fields of one request say; `length` is that of the body, in bytes."""

    caller: Caller
    length: int = 0
    if_none_match: str | None = None
    request_id: str | None = None
    allowed_origin: str | None = None
    accepts_problem: bool = False


class _Heads(NamedTuple):
    """The heads of answers, with placeholders for the tag, the request's id and, if there is a
    body, its length and itself."""

    ok: bytes
    not_modified: bytes


class FastReads:
    """What all connections share: the store's parts, who may read, and the heads of answers."""

    def __init__(
        self,
        store: StoreParts,
        authenticator: Authenticator,
        cors: Cors,
        counts: Counts | None = None,
        rate: RatePolicy | None = None,
    ) -> None:
        self._store = store
        # If nothing is to be counted, nobody looks at these.
        self._requests = requests = Histograms(QUICK_SECONDS) if counts is None else counts.requests
        self._product = ReadTally.of(requests, PRODUCT, "GET")
        self._page = ReadTally.of(requests, PAGE, "GET")
        self._basket = ReadTally.of(requests, LOOKUP, "POST")
        self.cors = cors
        self.authenticator = authenticator
        self.rate = rate
        # The heads of this freshness and this second (unix time), by the origin that may read them.
        self._freshness: Freshness | None = None
        self._second = 0
        self._heads: dict[str | None, _Heads] = {}

    def respond(
        self, kind: str | None, target: bytes, fields: _Fields, began_at: float
    ) -> bytes | None:
        """Return the whole answer, which is counted; None unless it is 200 or 304.

        `kind` is product, page or basket, or None for a page without a query; `target` is the id,
        the query or the body. `began_at`: when the request was read, by the performance counter.
        """
        catalogue = self._store.writer.catalogue
        if catalogue is None:
            return None
        freshness, pending = self._store.freshness.measure(), self._store.pending
        if kind == "product":
            content, tally = _product(catalogue, target, pending), self._product
        elif kind == "basket":
            content, tally = _basket(catalogue, target, pending), self._basket
        else:
            content, tally = _page(catalogue, target, freshness, pending), self._page
        if content is None:
            return None
        second = int(time.time())
        if freshness is not self._freshness or second != self._second:
            self._freshness, self._second, self._heads = freshness, second, {}
        origin = fields.allowed_origin
        heads = self._heads.get(origin) or self._make_heads(freshness, second, origin)
        body, tag = content
        request_id = fields.request_id or new_request_id()
        if fields.if_none_match is not None and matches((fields.if_none_match,), tag):
            answer = heads.not_modified % (tag.encode(), request_id.encode())
            histogram = tally.not_modified
        else:
            answer = heads.ok % (tag.encode(), request_id.encode(), len(body), body)
            histogram = tally.ok
        seconds = perf_counter() - began_at
        if seconds <= QUICK_SECONDS:  # nearly always; the call would cost as much as all the rest
            histogram.counts[0] += 1
            histogram.total_seconds += seconds
        else:
            histogram.add(seconds)
        return answer

    def _make_heads(self, freshness: Freshness, second: int, origin: str | None) -> _Heads:
        date = http_date(second)
        fixed = {name: value.replace("%", "%%") for name, value in freshness.headers.items()}
        tagged = fixed | {"ETag": "%b"}
        ok = web.Response(headers=tagged | {"Content-Type": "application/json"})
        not_modified = web.Response(status=304, headers=tagged)
        self._heads[origin] = heads = _Heads(
            self._encode(ok, {"Content-Length": "%d", "Date": date}, "%b", origin) + b"%b",
            self._encode(not_modified, {"Date": date}, "%b", origin),
        )
        return heads

    def refuse(self, rate: RatePolicy, kind: str | None, fields: _Fields, began_at: float) -> bytes:
        """Return the whole answer, which is counted, to a request beyond the limit."""
        response = render(rate.refusal(), "")
        assert isinstance(response.body, bytes)
        last = {"Content-Length": str(len(response.body)), "Date": http_date(int(time.time()))}
        request_id = fields.request_id or new_request_id()
        answer = self._encode(response, last, request_id, fields.allowed_origin) + response.body
        route = {"product": PRODUCT, "basket": LOOKUP}.get(kind or "", PAGE)
        histogram = self._requests.of(route, "POST" if kind == "basket" else "GET", "429")
        histogram.add(perf_counter() - began_at)
        return answer

    def _encode(
        self, response: web.Response, last: dict[str, str], request_id: str, origin: str | None
    ) -> bytes:
        """Return the head of a response as the middleware makes it, in aiohttp's order of fields.

        `last` are those that aiohttp adds.
        """
        middleware.add_common_headers(response, request_id, origin, self.cors)
        response.headers.update(last)
        return head_of(response)


class FastConnection:
    """One connection. It remembers the header fields that it understood last, since a till sends
    the same ones each time. They hold a right key, for as long as the keys stay the same."""

    __slots__ = ("_reads", "_ring", "_understood", "has_refused")

    def __init__(self, reads: FastReads) -> None:
        self._reads = reads
        self._ring = reads.authenticator.ring
        self._understood: dict[bool, tuple[bytes, _Fields]] = {}  # with a body, and without
        self.has_refused = False
        """Whether an answer was a refusal."""

    def answer(self, data: bytes) -> bytes | None:
        """Return the answer to one whole request; None if aiohttp has to answer it."""
        request = _REQUEST.match(data)
        if request is None or middleware.log.isEnabledFor(logging.DEBUG):
            return None  # at level debug, the plain path logs each read
        began_at = perf_counter()
        kind = request.lastgroup
        raw_fields, end, body = data[request.end() :].partition(b"\r\n\r\n")
        fields = self._understand(raw_fields, has_body=kind == "basket") if end else None
        if fields is None or fields.length != len(body):
            return None
        target = body if kind == "basket" else request[kind] if kind else b""
        rate = self._reads.rate
        if rate is None:
            return self._reads.respond(kind, target, fields, began_at)
        client = fields.caller.name
        if fields.accepts_problem:
            return None  # in case of a refusal, which then has another shape
        if not rate.take(client):
            self.has_refused = True
            return self._reads.refuse(rate, kind, fields, began_at)
        answer = self._reads.respond(kind, target, fields, began_at)
        if answer is None:
            rate.give_back(client)
        return answer

    def _understand(self, raw_fields: bytes, *, has_body: bool) -> _Fields | None:
        authenticator = self._reads.authenticator
        if self._ring is not authenticator.ring:
            self._ring = authenticator.ring
            self._understood.clear()
        last = self._understood.get(has_body)
        if last is not None and compare_digest(raw_fields, last[0]):
            fields = last[1]
            return fields if authenticator.is_current(fields.caller) else None
        given = _parse_fields(raw_fields, _BODY_FIELDS if has_body else _FIELDS)
        if given is None or not _is_complete(given):
            return None
        caller = authenticator.find(given[b"x-api-key"])
        if caller is None:
            return None
        fields = _Fields(
            caller,
            int(given.get(b"content-length", "0")),
            given.get(b"if-none-match"),
            given.get(b"x-request-id"),
            self._reads.cors.allowed(given.get(b"origin")),
            "problem" in given.get(b"accept", "").lower(),
        )
        if fields.if_none_match is None and fields.request_id is None:
            self._understood[has_body] = (raw_fields, fields)
        return fields


def _is_complete(given: dict[bytes, str]) -> bool:
    """Return whether the required fields are there, and none that the plain path refuses."""
    if b"host" not in given or b"x-api-key" not in given:
        return False
    has_both = (b"content-length" in given) == (b"content-type" in given)
    return has_both and is_sane(given.get(b"x-request-id", "none"))


def _parse_fields(
    raw_fields: bytes, understood: dict[bytes, re.Pattern[bytes]]
) -> dict[bytes, str] | None:
    """Return the fields by name in lower case; None if one is not understood, or given twice."""
    if len(raw_fields) > _LONGEST_HEAD:
        return None
    given: dict[bytes, str] = {}
    for line in raw_fields.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name, value = field[1].lower(), field[2]
        values = understood.get(name)
        if values is None or name in given or not values.fullmatch(value):
            return None
        given[name] = value.decode()
    return given


def _product(catalogue: Catalogue, segment: bytes, pending: PendingStock | None) -> Content | None:
    """Return the content if there is such a product, and no route of that name.

    What begins with a dot has a meaning in paths.
    """
    product_id = segment.decode()
    if b"%" in segment:
        try:
            product_id = decode(product_id)
        except ValueError:
            return None
        if product_id.startswith(".") or product_id in ("stream", "dump"):
            return None
    return bodies.product(catalogue, product_id, pending)


def _page(
    catalogue: Catalogue, raw_query: bytes, freshness: Freshness, pending: PendingStock | None
) -> Content | None:
    if plain := _OFFSET_AND_LIMIT.fullmatch(raw_query):
        offset, limit = int(plain[1]), min(int(plain[2]), LARGEST_LIMIT)
        return bodies.page_at(catalogue, offset, limit, freshness, pending)
    try:
        query = read_page_query(*parse_query(raw_query.decode(), PAGE_PARAMETERS))
    except InvalidRequest:
        return None
    return bodies.page(catalogue, query, freshness, pending)


def _basket(catalogue: Catalogue, body: bytes, pending: PendingStock | None) -> Content | None:
    """Return the content if the body is a plain list of ids of unreserved characters, which can be
    read in one way only."""
    first = body.find(b"[") + 2  # behind the first quotation mark
    if not (body.startswith(_LIST_BEGINS) and body.endswith(_LIST_ENDS, first)):
        return None
    listed = body[first : -len(_LIST_ENDS)]
    separator = _SPACED if b" " in listed else _COMPACT
    others = listed.translate(None, _UNRESERVED)
    count = len(others) // len(separator)
    if count >= MOST_LOOKUPS or others != separator * count:
        return None
    ids = listed.decode().split(separator.decode())
    if len(set(ids)) < len(ids):
        ids = list(dict.fromkeys(ids))
    return bodies.basket(catalogue, ids, pending)
