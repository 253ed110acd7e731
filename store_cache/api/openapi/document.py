"""The OpenAPI 3.1 document, made from the route table and the models that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from store_cache.api import auth, request_ids
from store_cache.api.auth import Scope
from store_cache.api.content.documents import Error, ProblemDetails
from store_cache.api.openapi.examples import Examples
from store_cache.api.openapi.operation import JSON, Answer, Model, Operation, Parameter
from store_cache.api.openapi.operations import ALWAYS, ERROR_HEADERS, EVERYWHERE, HEADERS, TAGS
from store_cache.api.problems import PROBLEM_JSON, SECOND_STATUS, STATUS
from store_cache.api.routing import Route
from store_cache.central.carried import TRACEPARENT

_ABOUT = """\
The HTTP API of a shop's store: reads from memory, writes through to Central.

Every call with data needs a key in `X-API-Key`. The roles of a call's security say which: a key \
with a higher role may do what a lower one may. Every `GET` answers `HEAD` too.

Errors have one shape; with `Accept: application/problem+json` they come as RFC 9457 problem \
details. Programs decide by `code`. New fields, codes and other values may come with new versions.
"""

_KEY_SCHEME = "ApiKey"
_REGEX_IN_PATH = re.compile(r"{(\w+):[^{}]+}")

_EVERYWHERE = (
    Parameter(
        request_ids.HEADER,
        "header",
        "Names the request in its answer and in the logs: 1 to 128 letters, digits and `._:/+=@-`",
    ),
    Parameter(TRACEPARENT, "header", "The trace that the request is part of, by W3C Trace Context"),
)
"""The parameters of every call."""

_STRING = {"type": "string"}

Json = dict[str, Any]


def openapi_document(routes: Iterable[Route], *, version: str, examples: Examples) -> Json:
    """Return the document of these routes; those without an operation are left out."""
    described = [(route, route.operation) for route in routes if route.operation is not None]
    writer = _Writer(described, examples)
    paths: dict[str, Json] = {}
    for route, operation in described:
        methods = paths.setdefault(_REGEX_IN_PATH.sub(r"{\1}", route.path), {})
        methods[route.method.lower()] = writer.operation(route, operation)
    tags = {operation.tag for _, operation in described}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "store-cache",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": TAGS[tag]} for tag in TAGS if tag in tags],
        "paths": paths,
        "components": {
            "securitySchemes": {
                _KEY_SCHEME: {"type": "apiKey", "in": "header", "name": auth.HEADER}
            },
            "headers": {name: _header(name, is_required=name in ALWAYS) for name in HEADERS},
            "examples": _named(examples.errors),
            "schemas": writer.schemas,
        },
    }


def codes_of(route: Route, operation: Operation) -> list[str]:
    """Return the codes of all errors that the route may answer with."""
    codes = ["invalid_request", *operation.errors, "internal_error"]
    if route.scope > Scope.OPEN:
        codes += ["unauthorized", "wrong_tenant", "rate_limited"]
    if route.scope > Scope.READ:
        codes.append("forbidden")
    if operation.body is not None:
        # While a body arrives, the store may be stopped.
        codes += ["invalid_json", "payload_too_large", "unsupported_media_type", "central_timeout"]
    return list(dict.fromkeys(codes))


class _Writer:
    """Writes operations down; `schemas` are those of all their models."""

    def __init__(self, described: Sequence[tuple[Route, Operation]], examples: Examples) -> None:
        self._examples = examples
        models: list[Model] = [Error, ProblemDetails]
        for _, operation in described:
            models += [answer.model for answer in operation.answers if answer.model is not None]
            models += [] if operation.body is None else [operation.body]
        # A model may be named several times. Some cannot be hashed, so that ids stand for them.
        found, shared = TypeAdapter.json_schemas(
            [(key, "validation", TypeAdapter(model)) for key, model in _by_id(models).items()],
            ref_template="#/components/schemas/{model}",
            schema_generator=_WithoutTitles,
        )
        self._schema_of = {key: schema for (key, _), schema in found.items()}
        self.schemas: Json = dict(sorted(shared["$defs"].items()))

    def operation(self, route: Route, operation: Operation) -> Json:
        written: Json = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
        }
        if operation.description:
            written["description"] = operation.description
        written["parameters"] = [_parameter(each) for each in (*operation.parameters, *_EVERYWHERE)]
        if operation.body is not None:
            content = {
                "schema": self._schema(operation.body),
                "examples": _named(self._examples.requests(operation.id)),
            }
            written["requestBody"] = {
                "required": operation.needs_body,
                "content": {JSON: content},
            }
        written["responses"] = self._responses(route, operation)
        # Roles of a key are allowed since OpenAPI 3.1. An empty list: no key is needed.
        is_open = route.scope is Scope.OPEN
        written["security"] = [] if is_open else [{_KEY_SCHEME: [route.scope.name.lower()]}]
        return written

    def _responses(self, route: Route, operation: Operation) -> dict[str, Json]:
        """Return what is answered, by status. An error and another answer may share one."""
        answers = {answer.status: answer for answer in operation.answers}
        codes: dict[int, list[str]] = {status: [] for status in answers}
        for code in codes_of(route, operation):
            statuses = {STATUS[code], SECOND_STATUS.get(code, STATUS[code])}
            for status in statuses:
                codes.setdefault(status, []).append(code)
        return {
            str(status): self._response(status, operation.id, answers.get(status), codes[status])
            for status in sorted(codes)
        }

    def _response(
        self, status: int, operation_id: str, answer: Answer | None, codes: Sequence[str]
    ) -> Json:
        texts: list[str] = []
        headers = {name: _header_ref(name) for name in EVERYWHERE}
        content: dict[str, Json] = {}
        schemas: list[Json] = []  # of JSON
        examples: dict[str, Json] = {}
        if answer is not None:
            texts.append(answer.description)
            headers |= {name: _header_ref(name) for name in answer.headers}
            if answer.model is not None:
                schemas.append(self._schema(answer.model))
                examples |= _named(self._examples.answers(operation_id, status))
            else:
                content |= {media: {"schema": _STRING} for media in answer.media_types}
        if codes:
            texts.append(f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}")
            for code in codes:
                # The status may be that of other answers too, which do not have these headers.
                for name in ERROR_HEADERS.get(code, ()):
                    headers[name] = _header(name, is_required=False)
                examples[code] = {"$ref": f"#/components/examples/{code}"}
            schemas.append(self._schema(Error))
            content[PROBLEM_JSON] = {"schema": self._schema(ProblemDetails)}
        if schemas:
            schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
            content[JSON] = {"schema": schema, "examples": examples}
        written: Json = {"description": "; or ".join(texts), "headers": headers}
        if content:
            written["content"] = dict(sorted(content.items()))
        if codes:
            written["x-error-codes"] = list(codes)
        return written

    def _schema(self, model: Model) -> Json:
        return self._schema_of[_id(model)]


class _WithoutTitles(GenerateJsonSchema):
    """Titles that repeat the name of a field say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _by_id(models: Iterable[Model]) -> dict[str, Model]:
    return {_id(model): model for model in models}


def _id(model: Model) -> str:
    return str(id(model))


def _parameter(parameter: Parameter) -> Json:
    written: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.is_required,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        written["example"] = parameter.example
    return written


def _header(name: str, *, is_required: bool) -> Json:
    header = HEADERS[name]
    return {
        "description": header.description,
        "required": is_required,
        "schema": dict(header.schema),
    }


def _header_ref(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _named(values: Mapping[str, Any]) -> dict[str, Json]:
    return {name: {"value": value} for name, value in values.items()}
