"""What a search may ask for: query parameters of the list, and barcodes of a lookup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from store_cache.api.content.models import PAGE_PARAMETERS, PageQuery, read_page_query
from store_cache.api.problems import InvalidRequest
from store_cache.catalogue.search.gtin import WrongGtin, read_gtin
from store_cache.catalogue.search.index import Query
from store_cache.catalogue.search.words import words_of

MOST_CHARACTERS = 200
MOST_WORDS = 10

SEARCH_PARAMETERS = ("search", "barcode", "sku", "category", "status", "inStock", "sort")
LIST_PARAMETERS = (*PAGE_PARAMETERS, *SEARCH_PARAMETERS)
"""The query parameters of the list of a store with search."""

BY_ID = "productId"
_SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A page of the products that match; `by_relevance`: in this order, else in that of ids."""

    query: Query
    page: PageQuery
    by_relevance: bool


def read_search_query(parameters: Mapping[str, str], problems: Mapping[str, str]) -> SearchQuery:
    """Return what is searched for.

    Raises InvalidRequest if a parameter is wrong, or if `problems` has any.
    """
    found = dict(problems)
    by_relevance = "search" in parameters and parameters.get("sort") != BY_ID
    if parameters.get("sort", BY_ID) != BY_ID:
        found["sort"] = f"must be {BY_ID}, or left out"
    elif by_relevance and "after" in parameters:
        found["after"] = (
            f"does not go with the order by relevance; give sort={BY_ID}, or walk with offset"
        )
    query = Query(
        text=_text(parameters, found),
        barcode=_gtin(parameters, found),
        sku=_value(parameters, "sku", found),
        category=_value(parameters, "category", found),
        status=_value(parameters, "status", found),
        in_stock=_SWITCHES.get(parameters.get("inStock", "")),
    )
    if "inStock" in parameters and query.in_stock is None:
        found["inStock"] = "must be true or false"
    return SearchQuery(query, read_page_query(parameters, found), by_relevance)


def read_barcodes(barcodes: list[str]) -> list[str]:
    """Return the barcodes of a lookup, each once, as they were written first.

    Raises InvalidRequest.
    """
    first: dict[str, str] = {}
    problems: dict[str, str] = {}
    for number, barcode in enumerate(barcodes):
        try:
            first.setdefault(read_gtin(barcode), barcode)
        except WrongGtin as problem:
            problems[f"barcodes.{number}"] = str(problem)
    if problems:
        raise InvalidRequest.of_fields(problems)
    return list(first.values())


def _text(parameters: Mapping[str, str], problems: dict[str, str]) -> str | None:
    text = _value(parameters, "search", problems)
    if text is None:
        return None
    words = words_of(text)
    if not words:
        problems["search"] = "must hold a letter or a digit"
    elif len(words) > MOST_WORDS:
        problems["search"] = f"must have at most {MOST_WORDS} words; it has {len(words)}"
    return text


def _value(parameters: Mapping[str, str], name: str, problems: dict[str, str]) -> str | None:
    value = parameters.get(name)
    if value is None or 1 <= len(value) <= MOST_CHARACTERS:
        return value
    problems[name] = f"must have 1 to {MOST_CHARACTERS} characters"
    return None


def _gtin(parameters: Mapping[str, str], problems: dict[str, str]) -> str | None:
    if "barcode" not in parameters:
        return None
    try:
        return read_gtin(parameters["barcode"])
    except WrongGtin as problem:
        problems["barcode"] = str(problem)
        return None
