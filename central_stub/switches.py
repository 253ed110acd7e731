"""How deployed Centrals differ from the one of the contract, as one frozen value."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer
from pydantic.alias_generators import to_camel


class Feature(StrEnum):
    """What some deployed Centrals lack; the names of `CENTRAL_STUB_WITHOUT`."""

    GENERATION = "generation"
    EVENT_OFFSET = "event-offset"
    GONE = "gone"
    HOLD = "hold"
    DIGEST = "digest"
    CURSOR = "cursor"
    ZEROS = "zeros"
    ANSWER_ZEROS = "answer-zeros"
    ORDER = "order"
    REPORTS = "reports"


WireModel = ConfigDict(
    frozen=True, extra="forbid", strict=False, alias_generator=to_camel, populate_by_name=True
)


class Switches(BaseModel):
    """All differences and limits; the defaults are a Central with every feature.

    In `/v1/admin/switches` the names are camelCase: `eventOffsetMeans`.
    """

    model_config = WireModel

    without: frozenset[Feature] = frozenset()
    page_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    event_limit: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    key_memory_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 86_400

    event_offset_means: Literal["last", "next"] = "last"
    page_shape: Literal["products", "items", "list"] = "products"
    total_names: Literal["snake", "camel"] = "snake"
    batch_totals: Literal["counts", "summary"] = "counts"
    refusal_status: Literal["conflict", "varied"] = "conflict"
    rate_limit_hint: Literal["retry-after", "reset", "none"] = "retry-after"
    rate_limit_fields: Literal["custom", "draft", "absent"] = "custom"
    deletion_data: Literal["before", "empty", "absent"] = "before"
    figures_of_refusals: Literal["all", "conflicts"] = "all"
    odd_parameters: Literal["refused", "ignored"] = "refused"
    admin_summary: Literal["short", "long"] = "short"
    refuse_positive: bool = False
    html_errors: bool = False
    old_event_names: bool = False
    created_as_updated: bool = False
    unnamed_writes: bool = False
    same_version: bool = False
    null_events: bool = False
    slashes_unreachable: bool = False
    hold_beyond_head: bool = False

    def has(self, feature: Feature) -> bool:
        return feature not in self.without

    @field_serializer("without")
    def _sorted(self, without: frozenset[Feature]) -> list[str]:
        return sorted(without)


LIKE = {
    "older": Switches(
        without=frozenset(
            {
                Feature.GENERATION,
                Feature.EVENT_OFFSET,
                Feature.GONE,
                Feature.DIGEST,
                Feature.ANSWER_ZEROS,
                Feature.REPORTS,
            }
        ),
        page_limit=100,
        rate_limit=100,
        key_memory_seconds=120,
        page_shape="items",
        refusal_status="varied",
        figures_of_refusals="conflicts",
        odd_parameters="ignored",
        admin_summary="long",
        old_event_names=True,
        created_as_updated=True,
        unnamed_writes=True,
        null_events=True,
        hold_beyond_head=True,
    )
}
"""Deployed Centrals by name, for `central-stub serve --like`."""
