"""Product ids, idempotency keys and query parameters, decoded from a URL.

Aiohttp's own decoding leaves malformed and non-UTF-8 escapes as they are, so that two different
URLs would name one id. Here they are errors.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from aiohttp import web

from store_cache.api.problems import InvalidRequest

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # all of Unicode's category Cc
_NAME_SEGMENT = 4  # "", v1, store, inventory, {productId}


def product_id_of(request: web.Request) -> str:
    """Return the id in the path, whatever characters it holds. Raises InvalidRequest."""
    return _name_of(request, "productId")


def idempotency_key_of(request: web.Request) -> str:
    """Return the key in the path, whatever characters it holds. Raises InvalidRequest."""
    return _name_of(request, "idempotencyKey")


def outbox_id_of(request: web.Request) -> str:
    """Return the id in the path of an entry of the outbox. Raises InvalidRequest."""
    return _name_of(request, "outboxId")


def _name_of(request: web.Request, field: str) -> str:
    segment = request.rel_url.raw_path.split("/")[_NAME_SEGMENT]
    try:
        return decode(segment)
    except ValueError as problem:
        raise InvalidRequest.of_fields({field: str(problem)}) from None


def query_of(request: web.Request, known: Collection[str] = ()) -> dict[str, str]:
    """Return the parameters of the query.

    Raises InvalidRequest for unknown and repeated ones, so that no filter is silently ignored.
    """
    parameters, problems = parse_query(request.rel_url.raw_query_string, known)
    if problems:
        raise InvalidRequest.of_fields(problems)
    return parameters


def parse_query(raw: str, known: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters of a query, and the problems of wrong ones, both by name."""
    parameters: dict[str, str] = {}
    problems: dict[str, str] = {}
    for pair in filter(None, raw.split("&")):
        name, _, value = pair.replace("+", " ").partition("=")
        try:
            name = decode(name)
            if name not in known:
                accepted = f"known here: {', '.join(known)}" if known else "this call takes none"
                raise ValueError(f"is not a known query parameter; {accepted}")
            if name in parameters:
                raise ValueError("is given more than once")
            parameters[name] = decode(value)
        except ValueError as problem:
            problems[name] = str(problem)
    return parameters, problems


def list_of(raw: str, name: str) -> list[str]:
    """Return the items of a parameter that is a list, each once, in the order given.

    Commas separate them, and each is percent-encoded by itself. If no comma is plain, encoded ones
    separate too: many clients encode the list as a whole. Call it after `parse_query`, which finds
    what cannot be decoded.
    """
    for pair in raw.split("&"):
        encoded_name, _, value = pair.replace("+", " ").partition("=")
        if decode(encoded_name) == name:
            items = [*map(decode, value.split(","))] if "," in value else decode(value).split(",")
            return list(dict.fromkeys(filter(None, items)))
    return []


def is_sendable(product_id: str) -> bool:
    """Return whether the id can be part of a URL to Central: it is neither empty nor `.` or `..`,
    which are normalised away, and has no control characters."""
    return product_id not in ("", ".", "..") and _CONTROL.search(product_id) is None


def decode(text: str) -> str:
    """Return the text without its percent-encoding. Raises ValueError."""
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise ValueError("holds a % that is not followed by two hexadecimal digits; write %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("is not percent-encoded UTF-8") from None
