"""What is published of the list and the lookup of a store that can search."""

from __future__ import annotations

from dataclasses import replace

from store_cache.api.content.models import MOST_LOOKUPS, LookupBody
from store_cache.api.openapi import operations as op
from store_cache.api.openapi.operation import Parameter, Schema
from store_cache.api.search.parameters import BY_ID, MOST_CHARACTERS, MOST_WORDS
from store_cache.catalogue.search import gtin

_VALUE: Schema = {"type": "string", "minLength": 1, "maxLength": MOST_CHARACTERS}


def _value(name: str) -> Parameter:
    return Parameter(name, "query", f"Only products with this `{name}`; case is ignored", _VALUE)


_PARAMETERS = (
    Parameter(
        "search",
        "query",
        f"Up to {MOST_WORDS} words. Finds products in which each of them begins a word of the id, "
        "name, description, sku, category, tags or a barcode; case, accents and order are ignored",
        _VALUE,  # without an example: /docs would fill it in, and so ask for nothing else
    ),
    Parameter(
        "barcode",
        "query",
        "Only products with this GTIN-8, -12, -13 or -14; leading zeros are ignored. The check "
        "digit must be right",
        {"type": "string", "pattern": gtin.PATTERN},
    ),
    *map(_value, ("sku", "category", "status")),
    Parameter(
        "inStock",
        "query",
        "`true`: only products with `available` above 0; `false`: only the others",
        {"type": "string", "enum": ["true", "false"]},
    ),
    Parameter(
        "sort",
        "query",
        "The order of a `search` is by relevance: products whose id, sku or barcode is the whole "
        f"text, then those whose name begins with its words, then the rest. `{BY_ID}`: by id, "
        "which `after` needs",
        {"type": "string", "enum": [BY_ID]},
    ),
)

LIST_PRODUCTS = replace(
    op.LIST_PRODUCTS,
    summary="Read a page of the catalogue, or search it",
    description="Products are ordered by the code points of their ids; for a `search`, see `sort`.",
    parameters=(*op.LIST_PRODUCTS.parameters, *_PARAMETERS),
    errors=(*op.LIST_PRODUCTS.errors, "index_not_ready"),
)
LOOK_UP_PRODUCTS = replace(
    op.LOOK_UP_PRODUCTS,
    summary=f"Read up to {MOST_LOOKUPS} products by their ids, and as many barcodes",
    description="Each product comes once: first those of the ids, then those of the barcodes, in "
    "the order asked for.",
    body=LookupBody,
    errors=(*op.LOOK_UP_PRODUCTS.errors, "index_not_ready"),
)
