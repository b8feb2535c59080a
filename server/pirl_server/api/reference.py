"""/docs: every operation of the REST API on one page of plain HTML, made from the OpenAPI document.

It loads nothing, so that it is whole on a floor without internet, and runs no script. It needs no token, since a
browser has no place to put one: what it says is the same for every server of this version.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_STYLE = (
    "body{font:15px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code,pre{background:#f3f3f3}"
    "pre{padding:.5rem;overflow:auto}td,th{text-align:left;padding:.1rem .8rem .1rem 0;vertical-align:top}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@router.get("/docs", response_class=HTMLResponse)
def docs(request: Request) -> HTMLResponse:
    """Show the reference."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    operations = [
        _operation(method.upper(), path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]
    schemas = [_schema(name, each) for name, each in sorted(document["components"]["schemas"].items())]
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    intro = (
        f"<h1>{title}</h1><p>{html.escape(document['info'].get('summary', ''))}. As JSON: <code>/openapi.json</code>,"
        " with a token where tokens are on. Errors are <code>application/problem+json</code>.</p>"
    )
    return f"{head}{intro}<h2>Operations</h2>{''.join(operations)}<h2>Schemas</h2>{''.join(schemas)}</html>"


def _operation(method: str, path: str, said: dict[str, Any]) -> str:
    public = said.get("security") == []
    token = "" if public else ' -H "Authorization: Bearer $TOKEN"'
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    payload = "" if body is None else " --json '{...}'"
    rows = [
        (each["name"], each["in"], json.dumps(each["schema"]), each.get("description", ""))
        for each in said.get("parameters", ())
    ]
    rows += [("body", "json", _names(body), "")] if body is not None else []
    statuses = ", ".join(f"<code>{status}</code>" for status in sorted(said["responses"]))
    return (
        f"<h3><code>{method} {html.escape(path)}</code></h3><p>{_text(said.get('description', ''))}</p>"
        f"<pre>curl -sS -X {method} $SERVER{html.escape(path)}{token}{payload}</pre>{_table(rows)}"
        f"<p>Answers: {statuses}</p>"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (key, "required" if key in required else "", _names(each), each.get("description", ""))
        for key, each in schema.get("properties", {}).items()
    ]
    return f"<h3>{html.escape(name)}</h3><p>{_text(schema.get('description', ''))}</p>{_table(rows)}"


def _names(schema: dict[str, Any]) -> str:
    """Return a schema as text, without what the table shows beside it and with the names of those it refers to."""
    left = {key: value for key, value in schema.items() if key not in ("title", "description", "examples")}
    return json.dumps(left).replace("#/components/schemas/", "")


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _text(text: str) -> str:
    return html.escape(text)
