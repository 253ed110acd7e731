"""The same reads written with FastAPI: response models, and the key as a dependency.

`PORT` is its port, `PRODUCTS` how many it holds. It runs on uvicorn with uvloop and httptools,
without an access log.
"""

from __future__ import annotations

import os
import secrets
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from pydantic import BaseModel

from benchmarks.harness.processes import KEY
from benchmarks.harness.rows import product_id, row


class Product(BaseModel):
    productId: str  # noqa: N815 - as it is called on the wire
    name: str
    available: int
    version: int
    lastUpdated: str  # noqa: N815
    price: float


class Pagination(BaseModel):
    offset: int
    limit: int
    total: int
    hasMore: bool  # noqa: N815


class Page(BaseModel):
    products: list[Product]
    pagination: Pagination


PRODUCTS = {product_id(n): Product(**row(n)) for n in range(int(os.environ.get("PRODUCTS", "0")))}
IDS = sorted(PRODUCTS)


async def check_key(x_api_key: Annotated[str, Header()] = "") -> None:
    if not secrets.compare_digest(x_api_key.encode(), KEY.encode()):
        raise HTTPException(401)


app = FastAPI(dependencies=[Depends(check_key)])


@app.get("/v1/store/inventory/{product_id}")
async def product(product_id: str) -> Product:
    if (found := PRODUCTS.get(product_id)) is None:
        raise HTTPException(404)
    return found


@app.get("/v1/store/inventory")
async def page(
    offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Page:
    rows = [PRODUCTS[each] for each in IDS[offset : offset + limit]]
    total = len(IDS)
    more = offset + limit < total
    return Page(
        products=rows,
        pagination=Pagination(offset=offset, limit=limit, total=total, hasMore=more),
    )


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
