"""The service `Inventory`: reads from memory, writes through the forwarder, changes as they come.

What a call asks for is checked by the code that checks an HTTP request, so both refuse the same.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from functools import partial

import orjson

from store_cache.api.auth import Authenticator, Scope
from store_cache.api.content.clock import rfc3339
from store_cache.api.content.models import (
    MOST_LOOKUPS,
    MOST_STREAMED,
    read_adjustment,
    read_batch,
    read_history_limit,
    read_page_query,
    read_update,
)
from store_cache.api.content.paths import is_sendable
from store_cache.api.parts import StoreParts
from store_cache.api.problems import (
    CacheNotReady,
    InvalidRequest,
    ProductNotFound,
    TooManyStreams,
    retry_after,
)
from store_cache.api.search.parameters import read_barcodes, read_search_query
from store_cache.api.stream.handler import FULL_RETRY_SECONDS
from store_cache.api.stream.reader import Reader
from store_cache.api.stream.streams import Streams
from store_cache.catalogue.catalogue import Catalogue
from store_cache.catalogue.search.index import SearchIndex
from store_cache.rpc import messages
from store_cache.rpc.calls import CALLER, USER, Context, NotServed
from store_cache.rpc.generated import inventory_pb2 as pb
from store_cache.rpc.generated.inventory_pb2_grpc import InventoryServicer
from store_cache.rpc.watch import Watcher, message_of

_TEXT_FILTERS = ("search", "barcode", "sku", "category", "status")


class Inventory(InventoryServicer):
    def __init__(self, store: StoreParts, *, store_id: str, authenticator: Authenticator) -> None:
        self._store = store
        self._store_id = store_id
        self._authenticator = authenticator

    # -- reads -----------------------------------------------------------------------------

    async def GetProduct(  # noqa: N802 - the names of methods are those of the protocol
        self, request: pb.GetProductRequest, context: Context
    ) -> pb.GetProductResponse:
        product_id = request.product_id
        self._catalogue()
        if request.no_cache and is_sendable(product_id):
            await self._store.refetcher.refresh(product_id)
        row = self._catalogue().get(product_id)
        if row is None:
            raise ProductNotFound(
                "The store holds no such product", details={"productId": product_id}
            )
        return pb.GetProductResponse(product=self._product(row), freshness=self._freshness())

    async def BatchGetProducts(  # noqa: N802
        self, request: pb.BatchGetProductsRequest, context: Context
    ) -> pb.BatchGetProductsResponse:
        ids, barcodes = list(dict.fromkeys(request.product_ids)), list(request.barcodes)
        for name, asked in (("product_ids", ids), ("barcodes", barcodes)):
            if len(asked) > MOST_LOOKUPS:
                raise InvalidRequest.of_fields({name: f"must be at most {MOST_LOOKUPS}"})
        missing_barcodes = []
        if barcodes:
            wanted = read_barcodes(barcodes)
            index = await self._index()
            found = {barcode: index.with_barcode(barcode) for barcode in wanted}
            missing_barcodes = [barcode for barcode, held in found.items() if not held]
            ids += [one for held in found.values() for one in held]
        catalogue = self._catalogue()
        rows = {one: catalogue.get(one) for one in ids}
        return pb.BatchGetProductsResponse(
            products=[self._product(row) for row in rows.values() if row is not None],
            missing_ids=[one for one, row in rows.items() if row is None],
            missing_barcodes=missing_barcodes,
            freshness=self._freshness(),
        )

    async def ListProducts(  # noqa: N802
        self, request: pb.ListProductsRequest, context: Context
    ) -> pb.ListProductsResponse:
        parameters = {name: getattr(request, name) for name in _TEXT_FILTERS}
        if request.HasField("in_stock"):
            parameters["inStock"] = "true" if request.in_stock else "false"
        if request.order_by_id:
            parameters["sort"] = "productId"
        parameters = {name: value for name, value in parameters.items() if value}
        paging = _read_token(request.page_token)
        if request.page_size:
            paging["limit"] = str(request.page_size)
        if parameters:
            asked = read_search_query(parameters | paging, {})
            index = await self._index()
            found = index.find(asked.query, by_relevance=asked.by_relevance)
            page, by_offset, total = asked.page, asked.by_relevance, found.total
            if page.after is None:
                start, rows = page.offset, found.page(page.offset, page.limit)
            else:
                start, rows = found.page_after(page.after, page.limit)
        else:
            page, by_offset, catalogue = read_page_query(paging, {}), False, self._catalogue()
            total = len(catalogue)
            if page.after is None:
                start, rows = page.offset, catalogue.page(page.offset, page.limit)
            else:
                start, rows = catalogue.page_after(page.after, page.limit)
        products = [self._product(row) for row in rows]
        next_token = ""
        if products and start + len(products) < total:
            by_id = {"after": products[-1].product_id}
            next_token = _write_token({"offset": start + len(products)} if by_offset else by_id)
        return pb.ListProductsResponse(
            products=products,
            next_page_token=next_token,
            total_size=total,
            freshness=self._freshness(),
        )

    async def ListProductHistory(  # noqa: N802
        self, request: pb.ListProductHistoryRequest, context: Context
    ) -> pb.ListProductHistoryResponse:
        history = self._store.history
        if history is None:
            raise NotServed("the history of products", "HISTORY_LIMIT=0")
        size = {"limit": str(request.page_size)} if request.page_size else {}
        limit = read_history_limit(size, {})
        catalogue, product_id = self._catalogue(), request.product_id
        found = history.of(product_id, limit)
        if not found.changes and product_id not in catalogue.rows:
            raise ProductNotFound(
                "The store holds no such product, and saw none since its start",
                details={"productId": product_id},
            )
        with_keys = CALLER.get().scope >= Scope.ADMIN
        return pb.ListProductHistoryResponse(
            changes=[messages.change(entry, with_key=with_keys) for entry in found.changes],
            since=rfc3339(history.since),
            complete=found.is_complete,
            freshness=self._freshness(),
        )

    async def WatchProducts(  # type: ignore[override] # noqa: N802
        self, request: pb.WatchProductsRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Yield messages that are serialized already, once for all watchers."""
        streams = self._store.streams
        if streams is None:
            raise NotServed("the stream of changes", "STREAM_READERS=0")
        wanted = list(request.product_ids) or None
        if wanted is not None and len(wanted) > MOST_STREAMED:
            raise InvalidRequest.of_fields({"product_ids": f"must be at most {MOST_STREAMED}"})
        self._catalogue()
        if streams.is_stopping:
            raise _none_now(streams, "The store is stopping, and opens no more streams")
        if streams.is_full:
            reason = f"{len(streams)} of {streams.most} streams are open; raise STREAM_READERS"
            raise _none_now(streams, reason)
        reader, watcher = Reader(streams.feed, streams.state, wanted), Watcher()
        streams.state.update()
        begins = reader.begin(
            last_event_id=request.resume_token or None, from_start=request.from_start
        )
        stream = streams.open(
            reader,
            watcher,
            watcher,
            is_allowed=partial(self._authenticator.is_valid, CALLER.get()),
            is_chunked=False,
            begins=begins,
        )
        stream.ended.add_done_callback(lambda _: watcher.end())
        try:
            while (events := await watcher.read()) is not None:
                if message := message_of(events, self._store.freshness.measure()):
                    yield message
        finally:
            streams.forget(stream)

    # -- writes ----------------------------------------------------------------------------

    async def UpdateInventory(  # noqa: N802
        self, request: pb.UpdateInventoryRequest, context: Context
    ) -> pb.UpdateInventoryResponse:
        write = read_update(
            _update(request),
            store_id=self._store_id,
            client=CALLER.get().name,
            user_id=USER.get(),
            note_unknown=_none,
        )
        answer = await self._store.forwarder.update(write)
        return pb.UpdateInventoryResponse(
            result=messages.write_result(answer.body), freshness=self._freshness()
        )

    async def BatchUpdateInventory(  # noqa: N802
        self, request: pb.BatchUpdateInventoryRequest, context: Context
    ) -> pb.BatchUpdateInventoryResponse:
        writes = read_batch(
            {"updates": [_update(one) for one in request.updates]},
            store_id=self._store_id,
            client=CALLER.get().name,
            user_id=USER.get(),
            note_unknown=_none,
        )
        answer = await self._store.forwarder.update_batch(writes)
        return pb.BatchUpdateInventoryResponse(
            results=[messages.write_result(body) for body in answer.results],
            freshness=self._freshness(),
        )

    async def AdjustInventory(  # noqa: N802
        self, request: pb.AdjustInventoryRequest, context: Context
    ) -> pb.AdjustInventoryResponse:
        body = {"quantityChange": request.quantity_change} | _remarks(request)
        adjustment = read_adjustment(
            body,
            product_id=request.product_id,
            keys=[request.request_id],
            client=CALLER.get().name,
            user_id=USER.get(),
            note_unknown=_none,
        )
        answer = await self._store.forwarder.adjust(adjustment)
        return pb.AdjustInventoryResponse(
            result=messages.write_result(answer.body), freshness=self._freshness()
        )

    # -- how -------------------------------------------------------------------------------

    def _product(self, row: bytes) -> pb.Product:
        """Return a product with what is pending of it."""
        pending = self._store.pending
        return messages.product(pending.show(row) if pending else row)

    def _catalogue(self) -> Catalogue:
        catalogue = self._store.writer.catalogue
        if catalogue is None:
            raise CacheNotReady(self._store.status.why_no_catalogue())
        return catalogue

    async def _index(self) -> SearchIndex:
        self._catalogue()
        if self._store.search is None:
            raise NotServed("the search", "SEARCH=false")
        return await self._store.search.current()

    def _freshness(self) -> pb.Freshness:
        return messages.freshness(self._store.freshness.measure())


def _update(request: pb.UpdateInventoryRequest) -> dict[str, object]:
    """Return the body of an update as HTTP has it."""
    rebases = request.on_conflict == pb.ON_CONFLICT_REBASE
    return {
        "productId": request.product_id,
        "delta": request.delta,
        "version": request.version,
        "idempotencyKey": request.request_id,
        **({"onConflict": "rebase"} if rebases else {}),
        **_remarks(request),
    }


def _remarks(request: pb.UpdateInventoryRequest | pb.AdjustInventoryRequest) -> dict[str, object]:
    given = {"reason": request.reason, "updatedBy": request.updated_by}
    return {name: value for name, value in given.items() if value}


def _none(_: str) -> None:
    """No field is unknown: the messages are the protocol's."""


def _none_now(streams: Streams, reason: str) -> TooManyStreams:
    seconds = streams.random_seconds(FULL_RETRY_SECONDS)
    return TooManyStreams(reason, headers=retry_after(seconds))


def _write_token(place: Mapping[str, int | str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


def _read_token(token: str) -> dict[str, str]:
    """Return where a page begins, as parameters of the HTTP list. Raises InvalidRequest."""
    if not token:
        return {}
    try:
        place = orjson.loads(base64.urlsafe_b64decode(token))
        if isinstance(place, dict) and place.keys() <= {"offset", "after"}:
            return {name: str(value) for name, value in place.items()}
    except ValueError:
        pass
    raise InvalidRequest.of_fields({"page_token": "must be the next_page_token of a page before"})
