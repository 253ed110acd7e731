"""Product ids and query parameters as they stand in a URL.

Knows: percent-encoding, exactly; aiohttp's own decoding leaves malformed and non-UTF-8 escapes as
they are, so that two different URLs would name one id. Refuses to know: what the id is of.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from aiohttp import web

from store_cache.api.problems import InvalidRequest

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # all of Unicode's category Cc
_ID_SEGMENT = 4  # "", v1, store, inventory, {productId}


def product_id_of(request: web.Request) -> str:
    """The id in the path, whatever characters it holds. Raises InvalidRequest."""
    segment = request.rel_url.raw_path.split("/")[_ID_SEGMENT]
    try:
        return _decode(segment)
    except ValueError as problem:
        raise InvalidRequest.of_fields({"productId": str(problem)}) from None


def query_of(request: web.Request, known: Collection[str] = ()) -> dict[str, str]:
    """The query's parameters. Raises InvalidRequest for unknown and for repeated ones, so that
    no filter is ever silently ignored."""
    parameters, problems = parse_query(request.rel_url.raw_query_string, known)
    if problems:
        raise InvalidRequest.of_fields(problems)
    return parameters


def parse_query(raw: str, known: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The parameters of a query as it was sent, and what is wrong with others, both by name."""
    parameters: dict[str, str] = {}
    problems: dict[str, str] = {}
    for pair in filter(None, raw.split("&")):
        name, problem = _take(pair, known, parameters)
        if problem:
            problems[name] = problem
    return parameters, problems


def _take(pair: str, known: Collection[str], parameters: dict[str, str]) -> tuple[str, str]:
    """Add one `name=value` to the parameters, or say what is wrong with it."""
    raw_name, _, raw_value = pair.replace("+", " ").partition("=")
    try:
        name = _decode(raw_name)
    except ValueError as problem:
        return raw_name, str(problem)
    if name not in known:
        accepted = f"; known here: {', '.join(known)}" if known else "; this call takes none"
        return name, "is not a known query parameter" + accepted
    if name in parameters:
        return name, "is given more than once"
    try:
        parameters[name] = _decode(raw_value)
    except ValueError as problem:
        return name, str(problem)
    return name, ""


def is_sendable(product_id: str) -> bool:
    """Whether the id can stand in a URL to Central: no `.` or `..`, which are normalised away,
    and no control characters."""
    if product_id in ("", ".", ".."):
        return False
    return _CONTROL.search(product_id) is None


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise ValueError("holds a % that is not followed by two hexadecimal digits; write %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("is not percent-encoded UTF-8") from None
