"""What the REST API says of itself: the OpenAPI document, its page, and the methods of a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from whole_server import Server

from pirl_server.security.permissions import PUBLIC, ROUTES


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
