"""Examples of requests and responses in the OpenAPI document, from examples.json: by operation, and by schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pirl_server.api.problem_kinds import KINDS

JSON = "application/json"


def add_examples(document: dict[str, Any]) -> None:
    """Put an example beside each body of JSON, and beside the text of those that are none."""
    known = json.loads((Path(__file__).with_name("examples.json")).read_text())
    for methods in document["paths"].values():
        for operation in methods.values():
            _describe(operation, known["requests"], known["responses"])


def _describe(operation: dict[str, Any], requests: dict[str, Any], responses: dict[str, Any]) -> None:
    body = operation.get("requestBody", {}).get("content", {}).get(JSON)
    if body is not None and operation["operationId"] in requests:
        body["examples"] = {"example": {"value": requests[operation["operationId"]]}}
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            name = content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
            if name == "Problem":
                content["examples"] = {"example": {"value": _problem(int(status))}}
            elif kind == JSON and name in responses:
                content["examples"] = {"example": {"value": responses[name]}}


def _problem(status: int) -> dict[str, Any]:
    kind, found = next((name, each) for name, each in KINDS.items() if each.status == status)
    title = kind.replace("-", " ").capitalize()
    return {"type": f"/problems/{kind}", "title": title, "status": status, "detail": found.meaning, "errors": []}
