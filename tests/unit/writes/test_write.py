"""What Central's answers prove of a write (W3), and what a till gets."""

from typing import Any

import pytest

from store_cache.model.stock import StockAnswer
from store_cache.writes.write import (
    ERROR_STATUS,
    Applied,
    Refused,
    Sent,
    Unknown,
    WriteError,
    answer_to,
    judge,
    judge_batch,
)

FIRST = Sent("P-1", 6, is_certain=True)
REPEAT = Sent("P-1", 6, is_certain=False)

APPLIED = {
    "productId": "P-1",
    "newQuantity": 8,
    "newVersion": 7,
    "applied": True,
    "lastUpdated": "2024-01-15T10:30:00Z",
}
CONFLICT = {
    "productId": "P-1",
    "applied": False,
    "newQuantity": 10,
    "newVersion": 9,
    "errorType": "version_conflict",
    "errorMessage": "expected 9, got 6",
}
REFUSALS = {
    "version_conflict": 409,
    "insufficient_inventory": 409,
    "product_not_found": 404,
    "invalid_request": 400,
    "missing_product_id": 400,
}


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: item for name, item in body.items() if name not in names}


@pytest.mark.parametrize("sent", [FIRST, REPEAT])
def test_a_complete_applied_answer_is_applied_whatever_came_before(sent: Sent) -> None:
    """Applied under the same key settles an attempt, first or repeated (W3)."""
    expected = Applied(StockAnswer("P-1", 6, 7, 8, "2024-01-15T10:30:00Z"))

    assert expected == judge(200, APPLIED, sent)


def test_a_quantity_left_out_beside_a_version_is_zero() -> None:
    """Deployed Centrals leave zeros out of the body."""
    expected = Applied(StockAnswer("P-1", 6, 7, 0, "2024-01-15T10:30:00Z"))

    assert expected == judge(200, without(APPLIED, "newQuantity"), FIRST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("productId", value) for value in ("P-2", None)),
        *(("newVersion", value) for value in (6, 8, 7.0, True, None)),
        *(("newQuantity", value) for value in (-1, "8", 2**53)),
        ("errorType", "version_conflict"),
    ],
)
def test_an_applied_answer_that_does_not_fit_proves_nothing(name: str, value: object) -> None:
    """It must name the product asked about and the version sent plus one (W3)."""
    assert isinstance(judge(200, APPLIED | {name: value}, FIRST), Unknown)


def test_an_applied_answer_of_another_write_names_the_key() -> None:
    """If the key was used for another product, Central answers with that one's numbers."""
    outcome = judge(200, APPLIED | {"newVersion": 3}, FIRST)

    assert isinstance(outcome, Unknown)
    assert "another write holds this idempotency key" in outcome.reason


@pytest.mark.parametrize("status", [200, 400, 404, 409, 422])
@pytest.mark.parametrize("error_type", REFUSALS)
def test_a_first_refusal_is_refused_under_any_status_in_use(status: int, error_type: str) -> None:
    """Deployed Centrals use 409 for every refusal, some 400 or 404."""
    expected = Refused(error_type, "expected 9, got 6", 10, 9)

    assert expected == judge(status, CONFLICT | {"errorType": error_type}, FIRST)


def test_a_refusal_with_zeros_left_out_is_the_same_refusal() -> None:
    """`applied` missing means false, `newQuantity` missing beside a version means 0."""
    expected = Refused("version_conflict", "expected 9, got 6", 0, 9)

    assert expected == judge(409, without(CONFLICT, "applied", "newQuantity"), FIRST)


def test_a_refusal_without_a_version_knows_no_state() -> None:
    """Version 0 written out means the same as none."""
    body = CONFLICT | {"errorType": "product_not_found", "newVersion": 0, "newQuantity": 0}

    expected = Refused("product_not_found", "expected 9, got 6")

    assert expected == judge(404, body, FIRST)
    assert expected == judge(404, without(body, "newVersion", "newQuantity"), FIRST)


def test_a_refusal_of_a_repeat_is_unknown_and_keeps_the_refusal() -> None:
    """Central may have applied the first try and forgotten the key (W3)."""
    outcome = judge(409, CONFLICT, REPEAT)

    assert isinstance(outcome, Unknown)
    assert Refused("version_conflict", "expected 9, got 6", 10, 9) == outcome.refusal


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (500, CONFLICT),
        (503, {"error": "away"}),
        (401, CONFLICT),
        (403, {"error": "key"}),
        (408, {"error": "slow"}),
        (429, {"error": "limit"}),
        (302, CONFLICT),
        (409, CONFLICT | {"errorType": "internal_error"}),
        (409, CONFLICT | {"errorType": "novelty"}),
        (409, CONFLICT | {"errorType": 7}),
        (409, CONFLICT | {"productId": "P-2"}),
        (409, CONFLICT | {"newVersion": "9"}),
        (409, without(CONFLICT, "errorType")),
        (400, {"code": "internal_error", "message": "broken"}),
        (400, {"message": "no code"}),
        (200, {"error": "odd"}),
        (200, {}),
        (200, []),
        (200, None),
        (409, "conflict"),
    ],
    ids=repr,
)
def test_anything_else_is_unknown(status: int, value: object) -> None:
    """Only a complete answer in Central's own format settles a write (W3)."""
    assert isinstance(judge(status, value, FIRST), Unknown)


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("body", [{"code": "bad", "message": "no"}, {"error": "no"}], ids=repr)
def test_a_general_error_about_the_write_refuses_it(status: int, body: dict[str, str]) -> None:
    """A complete 4xx in Central's general error format says that it rejected the write."""
    assert Refused("invalid_request", "no") == judge(status, body, FIRST)


def test_a_general_error_with_the_code_of_a_refusal_is_that_refusal() -> None:
    """Central's two error formats mean the same."""
    body = {"code": "version_conflict", "message": "no"}

    assert Refused("version_conflict", "no") == judge(409, body, FIRST)


def test_a_general_error_about_the_call_is_not_final() -> None:
    """No such route, too large: nothing was applied, and the write itself was not refused."""
    body = {"code": "not_found", "message": "no such path"}
    outcome = judge(404, body, FIRST)

    assert isinstance(outcome, WriteError)
    assert ("central_error", 502) == (outcome.code, outcome.status)
    assert isinstance(judge(404, body, REPEAT), Unknown)


def test_a_long_message_is_cut_because_refusals_are_remembered() -> None:
    """Central does not decide how much memory a refusal takes."""
    outcome = judge(409, CONFLICT | {"errorMessage": "x" * 10_000}, FIRST)

    assert isinstance(outcome, Refused)
    assert 300 == len(outcome.message)


def test_each_entry_of_a_batch_is_judged_by_itself() -> None:
    """Results come in the order sent, and each update stands alone."""
    sent = [Sent("P-1", 6, is_certain=True), Sent("P-1", 6, is_certain=False)]

    outcomes = judge_batch(200, {"results": [APPLIED, CONFLICT]}, sent)

    assert [Applied, Unknown] == [type(outcome) for outcome in outcomes]


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (200, {"results": [APPLIED]}),
        (500, {"results": [APPLIED, APPLIED]}),
        (200, APPLIED),
        (409, CONFLICT),
        (200, {}),
        (200, [APPLIED, APPLIED]),
    ],
    ids=repr,
)
def test_a_batch_without_a_result_for_each_entry_is_unknown(status: int, value: object) -> None:
    """An answer that does not tell entries apart settles none of them."""
    outcomes = judge_batch(status, value, [FIRST, FIRST])

    assert [Unknown, Unknown] == [type(outcome) for outcome in outcomes]


def test_a_batch_refused_as_a_whole_refuses_each_entry() -> None:
    """Central read the request and rejected it."""
    outcomes = judge_batch(400, {"code": "invalid_request", "message": "no"}, [FIRST, REPEAT])

    assert Refused("invalid_request", "no") == outcomes[0]
    assert isinstance(outcomes[1], Unknown)


def test_an_applied_write_is_answered_as_the_contract_shows() -> None:
    """store-api.md, Writes."""
    answer = answer_to(Applied(StockAnswer("P-1", 6, 7, 8, "2024-01-15T10:30:00Z")), "P-1")

    assert (200, APPLIED) == (answer.status, answer.body)


@pytest.mark.parametrize(("error_type", "status"), REFUSALS.items())
def test_a_refusal_has_the_tills_status_and_centrals_state(error_type: str, status: int) -> None:
    """With Central's current state if Central gave one."""
    answer = answer_to(Refused(error_type, "expected 9, got 6", 10, 9), "P-1")

    assert status == answer.status
    assert CONFLICT | {"errorType": error_type} == answer.body


def test_a_refusal_without_a_state_shows_none() -> None:
    """What Central does not know is left out."""
    answer = answer_to(Refused("product_not_found", "no"), "P-1")

    expected = {"productId": "P-1", "applied": False}
    expected |= {"errorType": "product_not_found", "errorMessage": "no"}

    assert expected == answer.body


@pytest.mark.parametrize(("code", "status"), ERROR_STATUS.items())
def test_each_error_has_one_status(code: str, status: int) -> None:
    """Error and status are one table."""
    assert status == WriteError(code, "why").status
