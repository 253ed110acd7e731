"""What verification found, as the status shows it."""

from __future__ import annotations

import orjson

from store_cache.api.content.clock import rfc3339
from store_cache.api.content.documents import Verification, VerifiedProduct
from store_cache.sync.verification.findings import Findings, Mismatch, VerificationState


def verification_document(findings: Findings | None) -> Verification:
    """Return the member `verification` of the status; None: it is off."""
    found = findings or Findings()
    position = found.position
    return {
        "state": VerificationState.OFF.value if findings is None else found.state.value,
        "method": found.method.value,
        "lastRun": _moment(found.last_run),
        "lastEqual": _moment(found.last_equal),
        "position": None
        if position is None
        else {"generation": position.label, "offset": position.last_offset},
        "mismatches": found.mismatches,
        "repaired": found.repaired,
        "onlyTimes": found.only_times,
        "unresolved": found.unresolved,
        "comparisons": {
            "completed": found.compared,
            "raced": found.raced,
            "givenUp": found.given_up,
        },
        "problem": found.problem,
        "recent": [_product(one) for one in reversed(found.recent)],
        "disputed": [_product(one) for one in found.disputed.values()],
    }


def _product(mismatch: Mismatch) -> VerifiedProduct:
    return {
        "productId": mismatch.product_id,
        "fields": mismatch.fields,
        "before": None if mismatch.before is None else orjson.loads(mismatch.before),
        "after": None if mismatch.after is None else orjson.loads(mismatch.after),
        "at": rfc3339(mismatch.at),
    }


def _moment(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else rfc3339(unix_seconds)
