"""What the REST API says of itself: the OpenAPI document, its page, and the methods of a path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from whole_server import Server

from pirl_server.api.application import PARTS
from pirl_server.api.problem_kinds import KINDS
from pirl_server.api.problems import _DENIED
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig
from pirl_server.security.permissions import PUBLIC, ROUTES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def web(tmp_path: Path, make_policy: Any) -> Iterator[httpx.Client]:
    server = Server(tmp_path, make_policy())
    with server.web(server.tokens.create("root", ["admin"])) as client:
        yield client
    server.close()


def test_a_wrong_method_is_told_the_right_ones(web: httpx.Client) -> None:
    for path, methods in (
        ("/v1/jobs", {"GET", "POST"}),
        ("/v1/routing/canary", {"PUT", "DELETE"}),
        ("/v1/emergency-stop", {"POST"}),
        (f"/v1/jobs/job_{'0' * 24}", {"GET"}),
    ):
        reply = web.request("PATCH", path)
        assert (reply.status_code, reply.headers["Content-Type"]) == (405, "application/problem+json")
        assert set(reply.headers["Allow"].replace(" ", "").split(",")) == methods


def test_the_document_says_who_needs_a_token_and_every_error(web: httpx.Client) -> None:
    document = web.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = ROUTES[method.upper(), path]
            assert operation["security"] == ([] if scopes == PUBLIC else [{"token": []}]), path
            assert set(operation.get("x-scopes", ())) == (set() if scopes == PUBLIC else set(scopes))
            assert {"400", "401", "403", "413", "429", "500"} <= operation["responses"].keys()


def test_every_property_and_parameter_is_described(web: httpx.Client) -> None:
    """But the kind of a job and its config, which is described where it is defined."""
    document = web.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert len(schemas) > 25
    gaps = [
        f"{name}.{key}"
        for name, schema in schemas.items()
        for key, value in schema.get("properties", {}).items()
        if "description" not in value and key not in ("kind", "config")
    ]
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    parameters = [each for operation in operations for each in operation.get("parameters", ())]
    assert len(parameters) > 15
    assert gaps + [each["name"] for each in parameters if "description" not in each] == []


def test_the_reference_is_whole_without_internet(web: httpx.Client) -> None:
    reply = web.get("/docs")
    document = web.get("/openapi.json").json()
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert re.findall(r"<script|<link|<img|src=|href=|url\(|@import|https?://", reply.text) == []
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"<code>{method.upper()} {path}</code>" in reply.text
    for name in document["components"]["schemas"]:
        assert f"<h3>{name}</h3>" in reply.text


def test_every_operation_has_summary_example_scope_and_errors(web: httpx.Client) -> None:
    """Of JSON an example that its own model takes; of text one as it is; files need none."""
    document = web.get("/openapi.json").json()
    models = {
        route.operation_id: route for part in PARTS for route in part.router.routes if isinstance(route, APIRoute)
    }
    gaps = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name, public = operation["operationId"], ROUTES[method.upper(), path] == PUBLIC
            errors = [status for status in operation["responses"] if status >= "400"]
            gaps += [] if operation["summary"] and operation["description"] else [f"{name}: no text"]
            gaps += [] if public or operation["x-scopes"] else [f"{name}: no scope"]
            gaps += [] if "401" in errors and "500" in errors else [f"{name}: no errors"]
            gaps += [] if "{" not in path or "422" in errors else [f"{name}: no 422"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            gaps += [] if not body or "examples" in body else [f"{name}: no example of a request"]
            if body:
                field = models[name].body_field
                assert field is not None
                _, wrong = field.validate(body["examples"]["example"]["value"], {}, loc=())
                gaps += [f"{name}: {wrong}"] if wrong else []
            for status, response in operation["responses"].items():
                for kind, content in response.get("content", {}).items():
                    if content["schema"].get("format") == "binary":
                        continue
                    if "examples" not in content:
                        gaps.append(f"{name}: no example of {status} {kind}")
                    elif kind == "application/json":
                        value = content["examples"]["example"]["value"]
                        shown = TypeAdapter(models[name].response_model).validate_python(value)
                        dumped = TypeAdapter(models[name].response_model).dump_python(shown, mode="json")
                        assert {key: dumped[key] for key in value} == value, name
                    elif kind == "application/problem+json":
                        assert str(content["examples"]["example"]["value"]["status"]) == status
    assert gaps == []
    assert len(models) > 40


def test_every_kind_of_problem_is_in_the_table(web: httpx.Client) -> None:
    """Those that the sources name, those of the document, and those of the how-to."""
    sources = "".join(path.read_text() for path in (ROOT / "server" / "pirl_server" / "api").glob("*.py"))
    named = set(re.findall(r'ProblemError\(\s*\d{3},\s*"([a-z-]+)"', sources)) | set(_DENIED)
    assert len(named) > 12
    assert named <= KINDS.keys()
    page = (ROOT / "docs" / "how-to" / "use-the-api.md").read_text()
    rows = re.findall(r"^\| `/problems/([a-z-]+)` \| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {kind: (int(status), meaning) for kind, status, meaning in rows} == {
        kind: (each.status, each.meaning) for kind, each in KINDS.items()
    }
    document = web.get("/openapi.json").json()
    assert document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"] == [
        f"/problems/{kind}" for kind in KINDS
    ]
    for path, status in (("/nothing", 404), ("/v1/jobs/job_x", 422), (f"/v1/jobs/job_{'0' * 24}", 404)):
        reply = web.get(path)
        assert (reply.status_code, reply.json()["type"].removeprefix("/problems/") in KINDS) == (status, True)


def test_openapi_names_every_operation_and_every_reference_resolves(web: httpx.Client) -> None:
    document = web.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) > 40
    assert all(operation["tags"] and operation.get("summary") for operation in operations)
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert {"Problem", "FieldError"} <= set(document["components"]["schemas"])


def test_openapi_shows_each_field_of_each_kind_with_description_unit_and_range(web: httpx.Client) -> None:
    document = web.get("/openapi.json").json()
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["discriminator"]["propertyName"] == "kind"
    kinds = {kind: schema_of(document, ref) for kind, ref in body["discriminator"]["mapping"].items()}
    assert kinds.keys() >= {"sft", "finetune_sim", "finetune_episodes", "evaluate", "loop", "import", "export"}
    trained = {"finetune_sim": PpoConfig, "finetune_episodes": EpisodesConfig, "sft": SftConfig}
    configs = [schema_of(document, kinds[kind]["properties"]["config"]["$ref"]) for kind in trained]
    names = [[field.name for field in fields(config)] for config in trained.values()]
    assert [list(config["properties"]) for config in configs] == names
    own = {name: field for kind in kinds.values() for name, field in kind["properties"].items()}
    del own["kind"], own["config"]
    configs += [schema_of(document, f"/{name}") for name in ("LoopCanary", "LoopEvaluation")]
    every = [*own.items(), *(pair for config in configs for pair in config["properties"].items())]
    for name, field in every:
        assert field["description"], name
        for shape in field.get("anyOf", [field]):
            if shape.get("type") in ("integer", "number"):
                assert field["unit"], name
                assert "minimum" in shape or "exclusiveMinimum" in shape, name


def schema_of(document: dict[str, Any], ref: str) -> dict[str, Any]:
    return dict(document["components"]["schemas"][ref.rsplit("/", 1)[-1]])
