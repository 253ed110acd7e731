"""The OpenAPI 3.1 document, made from the route table and the models that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_ABOUT = """\
The HTTP API of a shop's store: reads from memory, writes through to Central.

Every call with data needs a key in `X-API-Key`. The roles of a call's security say which: a key \
with a higher role may do what a lower one may. Every `GET` answers `HEAD` too.

Errors have one shape; with `Accept: application/problem+json` they come as RFC 9457 problem \
details. Programs decide by `code`. New fields, codes and other values may come with new versions.
"""

_REFS = "#/components/schemas/{model}"
_KEY_SCHEME = "ApiKey"
_REGEX_IN_PATH = re.compile(r"{(\w+):[^{}]+}")

_REQUEST_ID = Parameter(
    request_ids.HEADER,
    "header",
    "Names the request in its answer and in the logs: 1 to 128 letters, digits and `._:/+=@-`",
)

Json = dict[str, Any]


def published(routes: Iterable[Route]) -> list[tuple[Route, Operation]]:
    """Return the routes that are published, with their operations."""
    return [(route, route.operation) for route in routes if route.operation is not None]


def path_of(route: Route) -> str:
    """Return the path as OpenAPI writes it, without regular expressions."""
    return _REGEX_IN_PATH.sub(r"{\1}", route.path)


def codes_of(route: Route, operation: Operation) -> list[str]:
    """Return the codes of all errors that the route may answer with."""
    codes = ["invalid_request", *operation.errors, "internal_error"]
    if route.scope > Scope.OPEN:
        codes += ["unauthorized", "rate_limited"]
    if route.scope > min(scope for scope in Scope if scope > Scope.OPEN):
        codes.append("forbidden")
    if operation.body is not None:
        # While a body arrives, the store may be stopped.
        codes += ["invalid_json", "payload_too_large", "unsupported_media_type", "central_timeout"]
    return list(dict.fromkeys(codes))


def openapi_document(routes: Iterable[Route], *, version: str, examples: Examples) -> Json:
    """Return the document of these routes; those without an operation are left out."""
    described = published(routes)
    schemas = _Schemas(described)
    paths: dict[str, Json] = {}
    for route, operation in described:
        made = _operation(route, operation, schemas, examples)
        paths.setdefault(path_of(route), {})[route.method.lower()] = made
    used = {operation.tag for _, operation in described}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "store-cache",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag, "description": TAGS[tag]} for tag in TAGS if tag in used],
        "paths": paths,
        "components": {
            "securitySchemes": {
                _KEY_SCHEME: {"type": "apiKey", "in": "header", "name": auth.HEADER}
            },
            "headers": {name: _header(name, is_required=name in ALWAYS) for name in HEADERS},
            "examples": {code: {"value": value} for code, value in examples.errors.items()},
            "schemas": schemas.definitions,
        },
    }


class _Schemas:
    """The schemas of all models, and what refers to each."""

    def __init__(self, described: Sequence[tuple[Route, Operation]]) -> None:
        models: list[Model] = [Error, ProblemDetails]
        for _, operation in described:
            models += [answer.model for answer in operation.answers if answer.model is not None]
            models += [] if operation.body is None else [operation.body]
        adapters = [(str(id(model)), "validation", TypeAdapter(model)) for model in models]
        # Each key stands for a model once; the dict drops what is named several times.
        unique = {key: (key, mode, adapter) for key, mode, adapter in adapters}
        found, rest = TypeAdapter.json_schemas(
            list(unique.values()),  # type: ignore[arg-type]  # the mode is a literal
            ref_template=_REFS,
            schema_generator=_WithoutTitles,
        )
        self._schemas = {key: schema for (key, _), schema in found.items()}
        self.definitions: Json = dict(sorted(rest["$defs"].items()))

    def of(self, model: Model) -> Json:
        return self._schemas[str(id(model))]


class _WithoutTitles(GenerateJsonSchema):
    """Titles that repeat the name of a field say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _operation(route: Route, operation: Operation, schemas: _Schemas, examples: Examples) -> Json:
    made: Json = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        made["description"] = operation.description
    parameters = (*operation.parameters, _REQUEST_ID)
    made["parameters"] = [_parameter(parameter) for parameter in parameters]
    if operation.body is not None:
        made["requestBody"] = {
            "required": True,
            "content": {
                JSON: {
                    "schema": schemas.of(operation.body),
                    "examples": _named(examples.requests(operation.id)),
                }
            },
        }
    made["responses"] = _responses(route, operation, schemas, examples)
    # Roles of a key are allowed since OpenAPI 3.1. Without a key: an empty list.
    is_open = route.scope == Scope.OPEN
    made["security"] = [] if is_open else [{_KEY_SCHEME: [route.scope.name.lower()]}]
    return made


def _parameter(parameter: Parameter) -> Json:
    made: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "required": parameter.is_required,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _responses(
    route: Route, operation: Operation, schemas: _Schemas, examples: Examples
) -> dict[str, Json]:
    """Return the answers by status. Errors and refusals may share one."""
    codes: dict[int, list[str]] = {}
    for code in codes_of(route, operation):
        for status in statuses_of(code):
            codes.setdefault(status, []).append(code)
    answers = {answer.status: answer for answer in operation.answers}
    return {
        str(status): _response(
            status, operation.id, answers.get(status), codes.get(status, []), schemas, examples
        )
        for status in sorted({*answers, *codes})
    }


def statuses_of(code: str) -> Iterator[int]:
    yield STATUS[code]
    if code in SECOND_STATUS:
        yield SECOND_STATUS[code]


def _response(
    status: int,
    operation_id: str,
    answer: Answer | None,
    codes: Sequence[str],
    schemas: _Schemas,
    examples: Examples,
) -> Json:
    texts: list[str] = []
    choices: list[Json] = []
    shown: dict[str, Json] = {}
    content: dict[str, Json] = {}
    headers = {name: _header_ref(name) for name in EVERYWHERE}
    if answer is not None:
        texts.append(answer.description)
        headers |= {name: _header_ref(name) for name in answer.headers}
        if answer.model is not None:
            choices.append(schemas.of(answer.model))
            shown |= _named(examples.answers(operation_id, status))
        else:
            content |= {media: {"schema": {"type": "string"}} for media in answer.media_types}
    if codes:
        texts.append(f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}")
        choices.append(schemas.of(Error))
        shown |= {
            code: {"$ref": f"#/components/examples/{code}"}
            for code in codes
            if code in examples.errors
        }
        content[PROBLEM_JSON] = {"schema": schemas.of(ProblemDetails)}
        for code in codes:
            # The status may be that of other answers too, which do not have it.
            headers |= {
                name: _header(name, is_required=False) for name in ERROR_HEADERS.get(code, ())
            }
    if choices:
        schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
        content = {JSON: {"schema": schema, "examples": shown}} | content
    made: Json = {
        "description": "; or ".join(texts),
        "headers": headers,
    }
    if content:
        made["content"] = content
    if codes:
        made["x-error-codes"] = list(codes)
    return made


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
