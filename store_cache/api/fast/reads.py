"""The commonest reads, answered before aiohttp's machinery: one product, one page, one basket.

    what came on the connection …                                   is answered
    one whole, plain request of the grammar below, alone            here, by one write
    anything else, and whatever the plain path has a say in         by aiohttp, untouched

Knows: a small, strict part of HTTP/1.1, and the answers of `reads`, byte for byte.
Refuses to know: errors. What is missing, wrong, refused, limited, not ready or not understood is
handed over: `answer` gives None, has changed nothing, and aiohttp sees all that came.

It is there for speed alone (docs/architecture.md has the measured gain), and `FAST_READS=false`
leaves it out: the plain path answers everything.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from hmac import compare_digest

from aiohttp import web

from store_cache.api import middleware as exchange
from store_cache.api.auth import Authority
from store_cache.api.content import bodies
from store_cache.api.content.bodies import Content
from store_cache.api.content.cache_headers import freshness_headers, matches
from store_cache.api.content.freshness import Freshness
from store_cache.api.content.models import (
    LARGEST_LIMIT,
    MOST_LOOKUPS,
    PAGE_PARAMETERS,
    read_page_query,
)
from store_cache.api.content.paths import parse_query
from store_cache.api.cors import Cors
from store_cache.api.parts import StoreParts
from store_cache.api.problems import InvalidRequest
from store_cache.api.request_ids import is_sane, new_request_id
from store_cache.catalogue.catalogue import Catalogue

# Nothing that needs decoding: ids and queries of unreserved characters (RFC 3986, 2.3), and no id
# that begins with a dot, which paths give a meaning.
_REQUEST = re.compile(
    rb"(?:GET /v1/store/inventory"
    rb"(?:/(?P<product>[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,199})"
    rb"|(?:\?(?P<page>[A-Za-z0-9._~=&-]{1,250}))?)"
    rb"|POST /v1/store/inventory/(?P<basket>lookup)) HTTP/1\.1\r\n"
)
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-"
_FIELD = re.compile(rb"([A-Za-z-]{1,40}):[ ]?([!-~](?:[ -~]*[!-~])?)")
_ANYTHING = re.compile(rb"[ -~]*")
# These change no answer but errors, which are not given here. Browsers send the later ones.
_INDIFFERENT = (
    *(b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"referer"),
    *(b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"),
    *(b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform"),
)
# The values that are understood, of the fields that are; any other field hands over.
_FIELDS = {
    b"host": re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"),
    b"x-api-key": re.compile(rb"[!-~]{1,200}"),
    b"if-none-match": _ANYTHING,
    b"x-request-id": _ANYTHING,
    b"connection": re.compile(rb"(?i:keep-alive)"),
} | dict.fromkeys(_INDIFFERENT, _ANYTHING)
_BODY_FIELDS = _FIELDS | {
    b"content-type": re.compile(rb"application/json"),
    b"content-length": re.compile(rb"[1-9][0-9]{0,4}"),
}
_LONGEST_HEAD = 2048
# The commonest query, read in one step; `parse_query` reads the others.
_OFFSET_AND_LIMIT = re.compile(rb"offset=(0|[1-9][0-9]{0,8})&limit=([1-9][0-9]{0,5})")
# A list of ids, as JSON is usually written: close, or with a space behind colons and commas.
_LIST_BEGINS = (b'{"productIds":["', b'{"productIds": ["')
_CLOSE, _SPACED = b'","', b'", "'
_LIST_ENDS = b'"]}'


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the header fields of one request say; `length` is the body's, in bytes."""

    length: int = 0
    if_none_match: str | None = None
    request_id: str | None = None


class FastReads:
    """What all connections share: where rows come from, who may read, and the heads of answers."""

    def __init__(self, store: StoreParts, authority: Authority, cors: Cors) -> None:
        self._store = store
        self._cors = cors
        self._freshness: Freshness | None = None
        self._begins = self._ends = 0.0  # the second that the heads are of
        self._whole = self._unchanged = b""
        self.knows = authority.knows

    def content(self, kind: str | None, asked: bytes, freshness: Freshness) -> Content | None:
        catalogue = self._store.writer.catalogue
        if catalogue is None:
            return None
        if kind == "product":
            return bodies.product(catalogue, asked.decode())
        if kind == "basket":
            return _basket(catalogue, asked)
        return _page(catalogue, asked, freshness)

    def respond(self, kind: str | None, target: bytes, asked: _Asked) -> bytes | None:
        """The whole answer; None if there is something else to say than 200 or 304."""
        freshness = self._store.freshness.measure()
        content = self.content(kind, target, freshness)
        if content is None:
            return None
        if freshness is not self._freshness or not self._begins <= time.time() < self._ends:
            self._prepare(freshness)
        body, tag = content
        name = asked.request_id or new_request_id()
        if asked.if_none_match is not None and matches((asked.if_none_match,), tag):
            return self._unchanged % (tag.encode(), name.encode())
        return self._whole % (tag.encode(), name.encode(), len(body), body)

    def _prepare(self, freshness: Freshness) -> None:
        """Have the heads made of this freshness and this second."""
        second = int(time.time())
        self._freshness, self._begins, self._ends = freshness, float(second), second + 1.0
        date = formatdate(second, usegmt=True)
        self._unchanged = self._template(304, {}, {"Date": date})
        typed = {"Content-Type": "application/json"}
        self._whole = self._template(200, typed, {"Content-Length": "%d", "Date": date}) + b"%b"

    def _template(self, status: int, first: dict[str, str], last: dict[str, str]) -> bytes:
        """An answer as `reads` makes and `exchange` finishes it, in aiohttp's order of fields,
        with places for the tag, the request's id, and of a body the length."""
        fixed = freshness_headers(self._freshness or self._store.freshness.measure())
        headers = {name: value.replace("%", "%%") for name, value in fixed.items()}
        response = web.Response(status=status, headers=headers | {"ETag": "%b"} | first)
        exchange.finish(response, name="%b", origin=None, cors=self._cors)
        response.headers.update(last)
        fields = [f"{name}: {value}\r\n" for name, value in response.headers.items()]
        line = f"HTTP/1.1 {status} {response.reason}\r\n"
        return "".join([line, *fields, "\r\n"]).encode()


class Till:
    """One connection's side: it remembers the header fields that were understood before, since a
    till sends the same ones each time. They hold a key that this connection has proved to know."""

    __slots__ = ("_address", "_known", "_reads")

    def __init__(self, reads: FastReads, address: str) -> None:
        self._reads = reads
        self._address = address
        self._known: dict[bool, tuple[bytes, _Asked]] = {}

    def answer(self, data: bytes) -> bytes | None:
        """The answer to what came, which must be one whole request; None hands it over."""
        request = _REQUEST.match(data)
        if request is None or exchange.log.isEnabledFor(logging.DEBUG):
            return None  # where somebody debugs, each read is logged
        kind = request.lastgroup
        fields, end, body = data[request.end() :].partition(b"\r\n\r\n")
        asked = self._understand(fields, has_body=kind == "basket") if end else None
        if asked is None or asked.length != len(body):
            return None
        target = body if kind == "basket" else request[kind] if kind else b""
        return self._reads.respond(kind, target, asked)

    def _understand(self, fields: bytes, *, has_body: bool) -> _Asked | None:
        known = self._known.get(has_body)
        if known is not None and compare_digest(fields, known[0]):
            return known[1]
        given = _read(fields, _BODY_FIELDS if has_body else _FIELDS)
        if given is None or not self._may_read(given):
            return None
        asked = _Asked(
            int(given.get(b"content-length", "0")),
            given.get(b"if-none-match"),
            given.get(b"x-request-id"),
        )
        if asked.if_none_match is None and asked.request_id is None:
            self._known[has_body] = (fields, asked)
        return asked

    def _may_read(self, given: dict[bytes, str]) -> bool:
        """Whether all is there that must be, and nothing that the plain path would refuse."""
        if b"host" not in given or not is_sane(given.get(b"x-request-id", "none")):
            return False
        if (b"content-length" in given) != (b"content-type" in given):
            return False
        key = given.get(b"x-api-key")
        return key is not None and self._reads.knows(key, self._address)


def _read(fields: bytes, understood: dict[bytes, re.Pattern[bytes]]) -> dict[bytes, str] | None:
    """The header fields by name in lower case; None if any is not understood, or given twice."""
    if len(fields) > _LONGEST_HEAD:
        return None
    given: dict[bytes, str] = {}
    for line in fields.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name, value = field[1].lower(), field[2]
        values = understood.get(name)
        if values is None or name in given or not values.fullmatch(value):
            return None
        given[name] = value.decode()
    return given


def _page(catalogue: Catalogue, query: bytes, freshness: Freshness) -> Content | None:
    if plain := _OFFSET_AND_LIMIT.fullmatch(query):
        offset, limit = int(plain[1]), min(int(plain[2]), LARGEST_LIMIT)
        return bodies.page_at(catalogue, offset, limit, freshness)
    try:
        asked = read_page_query(*parse_query(query.decode(), PAGE_PARAMETERS))
    except InvalidRequest:
        return None
    return bodies.page(catalogue, asked, freshness)


def _basket(catalogue: Catalogue, body: bytes) -> Content | None:
    """Of a body that is a list of ids of unreserved characters: nothing in it can be read in two
    ways."""
    first = body.find(b"[") + 2  # behind the first quotation mark
    if not (body.startswith(_LIST_BEGINS) and body.endswith(_LIST_ENDS, first)):
        return None
    listed = body[first : -len(_LIST_ENDS)]
    between = _SPACED if b" " in listed else _CLOSE
    others = listed.translate(None, _UNRESERVED)
    count = len(others) // len(between)
    if count >= MOST_LOOKUPS or others != between * count:
        return None
    asked = listed.decode().split(between.decode())
    if len(set(asked)) < len(asked):
        asked = list(dict.fromkeys(asked))
    return bodies.basket(catalogue, asked)
