"""What a write looks like on its way to Central, and what a failure to send it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from store_cache.central.failures import AccessDenied, CentralError, WriteUnsent
from store_cache.writes.idempotency import Attempt
from store_cache.writes.write import (
    Unknown,
    WriteError,
    WriteOutcome,
    WriteRequest,
    unavailable,
    updated_by,
)


def payload_of(store_id: str, attempts: Sequence[tuple[WriteRequest, Attempt]]) -> dict[str, Any]:
    """Return the body of the request: an update alone, or a batch."""
    updates = []
    for request, attempt in attempts:
        update: dict[str, Any] = {
            "productId": request.product_id,
            "delta": request.delta,
            "version": attempt.version,
            "idempotencyKey": attempt.central_key(store_id),
        }
        if request.reason is not None:
            update["reason"] = request.reason
        if (person := updated_by(request)) is not None:
            update["updatedBy"] = person
        updates.append(update)
    return {"storeId": store_id} | (updates[0] if len(updates) == 1 else {"updates": updates})


def failure(problem: CentralError | WriteError) -> WriteOutcome:
    """Return the outcome of a write that got no answer that can be judged."""
    match problem:
        case WriteUnsent():
            return unavailable(str(problem), problem.retry_after_seconds or 1.0)
        case AccessDenied():
            return WriteError("central_error", str(problem), is_central_away=True)
        case CentralError():
            return Unknown(str(problem))
        case WriteError():
            return problem
