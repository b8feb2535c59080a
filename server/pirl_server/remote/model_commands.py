"""`pirl model ls | show | promote | rollback | lineage`: versions of a running server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pirl_server.remote.options import add_verb, parser_of, run, show, table
from pirl_server.remote.rest_client import RestClient


def model(arguments: Sequence[str]) -> int:
    """Look at versions of a running server, and choose which one serves."""
    parser = parser_of("model", model.__doc__ or "")
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "ls", list_models)
    add_verb(verbs, "show", show_model).add_argument("version", help="or alias")
    promoting = add_verb(verbs, "promote", promote)
    promoting.add_argument("version")
    promoting.add_argument("--force", action="store_true", help="past the gate: takes scope admin and a reason")
    for each in (promoting, add_verb(verbs, "rollback", rollback)):
        each.add_argument("--reason", default="", help="written to the audit log")
    lineage = add_verb(verbs, "lineage", show_lineage)
    lineage.add_argument("version", nargs="?", default="production", help="or alias (default: production)")
    return run("model", parser, arguments)


def list_models(server: RestClient, options: argparse.Namespace) -> int:
    """List versions, newest first, with their aliases and best known success."""
    found = server.get("/v1/models")
    if options.json:
        show(found)
        return 0
    rows = []
    for each in found["data"]:
        rates = [f"{said['task']} {said['successes']}/{said['episodes']}" for said in each["evaluations"]]
        rows.append((each["version"], ",".join(each["aliases"]), each["created"], each["parent"], "; ".join(rates)))
    table(("version", "aliases", "created", "parent", "evaluations"), rows)
    return 0


def show_model(server: RestClient, options: argparse.Namespace) -> int:
    """Print one version with its evaluations."""
    show(server.get(f"/v1/models/{options.version}"))
    return 0


def promote(server: RestClient, options: argparse.Namespace) -> int:
    """Serve a version, if it passes the gate; rejected where production moves meanwhile."""
    body = {"version": options.version, "force": options.force, "reason": options.reason}
    done = server.post("/v1/models/promote", body, if_match=_state(server))
    if options.json:
        show(done)
        return 0
    print(f"{done['version']} is in production")
    for why in done["overridden"]:
        print(f"  past the gate: {why}")
    return 0


def rollback(server: RestClient, options: argparse.Namespace) -> int:
    """Serve the version that was in production before; rejected where production moves meanwhile."""
    done = server.post("/v1/models/rollback", {"reason": options.reason}, if_match=_state(server))
    show(done) if options.json else print(f"{done['version']} is in production again")
    return 0


def show_lineage(server: RestClient, options: argparse.Namespace) -> int:
    """Print what a version came from."""
    graph = server.get(f"/v1/models/{options.version}/lineage")
    if options.json:
        show(graph)
        return 0
    print("\n".join(_tree(graph, graph["root"], set())))
    return 0


def _state(server: RestClient) -> str:
    return server.ask("GET", "/v1/models").headers["ETag"]


def _tree(graph: dict[str, Any], id_: str, seen: set[str]) -> list[str]:
    """Return the lines of a node and, below it, of what it depends on; those only where it comes first."""
    node = next(each for each in graph["nodes"] if each["id"] == id_)
    lines = [f"{node['kind']} {node['name']}{' (missing)' if node['missing'] else ''}"]
    if id_ in seen:
        return lines
    seen.add(id_)
    said = {key: ",".join(value) if isinstance(value, list) else value for key, value in node["details"].items()}
    lines[0] += "".join(f" {key}={value}" for key, value in said.items() if value != "")
    for edge in graph["edges"]:
        if edge["target"] == id_ and edge["relation"] == "evaluates":
            lines += _below("evaluated", _tree(graph, edge["source"], seen))
    for edge in graph["edges"]:
        if edge["source"] == id_ and edge["relation"] != "evaluates":
            lines += _below(edge["relation"].replace("_", " "), _tree(graph, edge["target"], seen))
    return lines


def _below(relation: str, lines: list[str]) -> list[str]:
    return [f"  {relation}: {lines[0]}", *(f"  {line}" for line in lines[1:])]
