"""What is published of one route: an `Operation`, which the route table names beside its handler.

What all routes have in common (the key, the id of the request, the errors of a bad body) is added
by `document`, so that an operation says only what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

JSON = "application/json"

Schema = Mapping[str, Any]
"""A JSON Schema, written out."""

Model = Any
"""A type that pydantic describes: a model, a TypedDict, a union of these."""


_TEXT: Schema = {"type": "string"}


@dataclass(frozen=True, slots=True)
class Header:
    """A header of answers."""

    description: str
    schema: Schema = field(default_factory=lambda: _TEXT)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path or query, or a header of the request. `example` is a real value."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Schema = field(default_factory=lambda: _TEXT)
    is_required: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no error.

    `model` None: it is text or bytes of one of the `media_types`, or has no body if there are none.
    `headers` are names of `operations.HEADERS`, besides those that every answer has.
    """

    status: int
    description: str
    model: Model = None
    media_types: Sequence[str] = (JSON,)
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """`id` names it in generated clients. `errors` are codes of `problems.STATUS`, besides those
    that any route with this scope and body gives."""

    id: str
    tag: str
    summary: str
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: type[BaseModel] | None = None
    needs_body: bool = True
    answers: Sequence[Answer] = ()
    errors: Sequence[str] = ()
