"""Errors of the API as gRPC statuses with the details of google.rpc.

`ErrorInfo` has the error code as its reason, and the details that are texts or numbers; `RetryInfo`
is there where waiting helps; `BadRequest` names each wrong field. See
https://google.aip.dev/193 and `google/rpc/error_details.proto`.
"""

from __future__ import annotations

import re

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from store_cache.api.problems import ApiError, InvalidRequest

DOMAIN = "store-cache"

CODES = {
    "invalid_request": StatusCode.INVALID_ARGUMENT,
    "invalid_json": StatusCode.INVALID_ARGUMENT,
    "unauthorized": StatusCode.UNAUTHENTICATED,
    "forbidden": StatusCode.PERMISSION_DENIED,
    "wrong_tenant": StatusCode.PERMISSION_DENIED,
    "not_found": StatusCode.NOT_FOUND,
    "product_not_found": StatusCode.NOT_FOUND,
    "idempotency_key_reused": StatusCode.ALREADY_EXISTS,
    "rate_limited": StatusCode.RESOURCE_EXHAUSTED,
    "too_many_streams": StatusCode.RESOURCE_EXHAUSTED,
    "payload_too_large": StatusCode.RESOURCE_EXHAUSTED,
    "cache_not_ready": StatusCode.UNAVAILABLE,
    "central_unavailable": StatusCode.UNAVAILABLE,
    "storage_unavailable": StatusCode.UNAVAILABLE,
    "index_not_ready": StatusCode.UNAVAILABLE,
    "outbox_full": StatusCode.RESOURCE_EXHAUSTED,
    "central_timeout": StatusCode.DEADLINE_EXCEEDED,  # repeat it with the same request_id
    "central_error": StatusCode.FAILED_PRECONDITION,
    "sync_failed": StatusCode.FAILED_PRECONDITION,
    "internal_error": StatusCode.INTERNAL,
}
"""The status of each error code of the API that a call can end with."""

_FIELDS = {
    "idempotencyKey": "request_id",
    "Idempotency-Key": "request_id",
    "X-API-Key": "x-api-key",
    "X-User-ID": "x-user-id",
    "limit": "page_size",
    "after": "page_token",
    "offset": "page_token",
    "sort": "order_by_id",
}
_CAMEL = re.compile(r"(?<=[a-z])[A-Z]")


def status_of(error: ApiError) -> Status:
    """Return the status of an error, as `grpc_status.rpc_status.to_status` takes it."""
    if "fields" in error.details:
        named = {_field(name): reason for name, reason in error.details["fields"].items()}
        error = InvalidRequest.of_fields(named)
    told = {
        name: str(value)
        for name, value in error.details.items()
        if isinstance(value, str | int | float)
    }
    details: list[Message] = [
        ErrorInfo(reason=error.shown_code, domain=DOMAIN, metadata=told),
    ]
    if (wait := error.headers.get("Retry-After")) is not None:
        details.append(RetryInfo(retry_delay=Duration(seconds=int(wait))))
    if "fields" in error.details:
        wrong = [
            BadRequest.FieldViolation(field=name, description=reason)
            for name, reason in error.details["fields"].items()
        ]
        details.append(BadRequest(field_violations=wrong))
    code, _ = CODES.get(error.shown_code, StatusCode.UNKNOWN).value
    return Status(code=code, message=error.message, details=[_packed(one) for one in details])


def _field(name: str) -> str:
    """Return a field of an HTTP request as the protocol names it: `updates.0.idempotencyKey` is
    `updates.0.request_id`."""
    path, dot, last = name.rpartition(".")
    return path + dot + _FIELDS.get(last, _CAMEL.sub(lambda found: f"_{found[0].lower()}", last))


def _packed(message: Message) -> Packed:
    packed = Packed()
    packed.Pack(message)
    return packed
