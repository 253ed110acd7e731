"""The examples of the API's description are what a store answers."""

from __future__ import annotations

import json

from store_cache.api.openapi.examples import Examples
from tests.golden import compare
from tests.golden.examples import FILE, comparable, examples
from tests.harness.api_document import Contract, published_document


def test_they_are_answers_of_a_store() -> None:
    """Each one is still given, field by field."""
    published = json.loads(FILE.read_text(encoding="utf-8"))

    differing = [*compare.differences(comparable(published), comparable(examples()))]

    assert not differing, "if that is meant: python -m tests.golden.record\n" + "\n".join(differing)


def test_they_are_as_their_schemas_say() -> None:
    """Requests and answers, for each operation that has a body."""
    document = published_document()
    contract = Contract(document)
    problems, count = [], 0
    for item in document["paths"].values():
        for operation in item.values():
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            for body in [*bodies, *operation["responses"].values()]:
                for media in body.get("content", {}).values():
                    for name, shown in media.get("examples", {}).items():
                        value = contract.resolved(shown)["value"]
                        problems += [
                            (operation["operationId"], name, problem)
                            for problem in contract.body_problems(media["schema"], value)
                        ]
                        count += 1

    assert not problems
    assert count > len(document["paths"])


def test_each_operation_and_each_code_has_one() -> None:
    """Every JSON answer and every request of the document has an example."""
    examples = Examples.load()
    document = published_document()
    missing = []
    for item in document["paths"].values():
        for operation in item.values():
            if operation["tags"] == ["Pages"]:
                continue
            name = operation["operationId"]
            if "requestBody" in operation and not examples.requests(name):
                missing.append(f"request of {name}")
            for status, answer in operation["responses"].items():
                shown = answer.get("content", {}).get("application/json", {"examples": "-"})
                missing += [] if shown["examples"] else [f"{status} of {name}"]
                missing += [
                    code for code in answer.get("x-error-codes", ()) if code not in examples.errors
                ]

    assert not missing
