"""`pirl job create | list | show | watch | log | cancel | pause | resume`: jobs of a running server."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pirl_server.config.command_line import settings
from pirl_server.config.jobs import AnySpec, known_fields, parse_spec
from pirl_server.remote.options import REJECTED, add_verb, parser_of, run, show, table
from pirl_server.remote.rest_client import RemoteEvent, RestClient

ENDED = ("succeeded", "failed", "cancelled")
POLL_S = 1.0
KINDS = tuple(kind.kind for kind in get_args(AnySpec))


def job(arguments: Sequence[str]) -> int:
    """Create, follow and stop jobs of a running server."""
    parser = parser_of("job", job.__doc__ or "")
    verbs = parser.add_subparsers(dest="verb", required=True)
    _add_create(verbs)
    listing = add_verb(verbs, "list", list_jobs)
    listing.add_argument("--status", help="only these: queued, running, paused, succeeded, failed or cancelled")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="newest ones (default: %(default)s)")
    for name, act in (("show", show_job), ("watch", watch), ("cancel", cancel), ("pause", pause), ("resume", resume)):
        add_verb(verbs, name, act).add_argument("job", help="id")
    log = add_verb(verbs, "log", print_log)
    log.add_argument("job", help="id")
    log.add_argument("--follow", "-f", action="store_true", help="until the job has ended")
    log.add_argument("--tail", type=int, metavar="BYTES", help="only the end")
    return run("job", parser, arguments)


def create(server: RestClient, options: argparse.Namespace) -> int:
    """Queue a job."""
    spec = _read(options.file) if options.file else asdict(parse_spec(_nested(options.kind, settings(options.set))))
    made = server.create("/v1/jobs", spec, options.key)
    if options.watch:
        print(made["id"], file=sys.stderr)
        return _watch(server, made["id"], options.json)
    show(made) if options.json else print(made["id"])
    return 0


def list_jobs(server: RestClient, options: argparse.Namespace) -> int:
    """List jobs, newest first."""
    found: list[dict[str, Any]] = []
    after = None
    while len(found) < options.limit:
        size = min(100, options.limit - len(found))
        page = server.get("/v1/jobs", status=options.status, limit=size, after=after)
        found += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            break
    if options.json:
        show(found)
        return 0
    rows = [
        (
            each["id"], each["spec"]["kind"], each["status"], each["created"], each.get("last_progress_at"),
            each["spec"].get("task"), each["error"],
        )
        for each in found
    ]  # fmt: skip
    table(("id", "kind", "status", "created", "progress", "task", "error"), rows)
    return 0


def show_job(server: RestClient, options: argparse.Namespace) -> int:
    """Print one job with every default filled in."""
    show(server.get(f"/v1/jobs/{options.job}"))
    return 0


def watch(server: RestClient, options: argparse.Namespace) -> int:
    """Follow a job to its end; exits with 1 when it does not succeed. Ctrl-C leaves the job alone."""
    return _watch(server, options.job, options.json)


def print_log(server: RestClient, options: argparse.Namespace) -> int:
    """Print what the job wrote."""
    offset = 0 if options.tail is None else -options.tail
    while True:
        over = options.follow and server.get(f"/v1/jobs/{options.job}")["status"] in ENDED
        part = server.get(f"/v1/jobs/{options.job}/log", offset=offset, limit=256 * 1024)
        offset = part["next_offset"]
        show(part) if options.json else print(part["text"], end="", flush=True)
        if part["text"]:
            continue
        if over or not options.follow:
            return 0
        time.sleep(POLL_S)


def cancel(server: RestClient, options: argparse.Namespace) -> int:
    """Ask a job to stop."""
    return _change(server, options)


def pause(server: RestClient, options: argparse.Namespace) -> int:
    """Let a job wait."""
    return _change(server, options)


def resume(server: RestClient, options: argparse.Namespace) -> int:
    """Let a paused job continue."""
    return _change(server, options)


def _add_create(verbs: Any) -> None:
    parser = add_verb(verbs, "create", create)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("kind", nargs="?", choices=KINDS, help="of job")
    what.add_argument("--file", type=Path, help="JSON of the job, as `pirl job show` prints its spec")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="fields of the list below; of config also as they are"
    )
    parser.add_argument("--key", default="", help="the same key and job are queued once (default: one per command)")
    parser.add_argument("--watch", action="store_true", help="follow it to its end")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = ["fields of --set, by kind; null is written none, a list as JSON:"]
    for kind in get_args(AnySpec):
        named = [each.name for each in fields(kind) if each.name != "kind"]
        nested = {name: known_fields((kind.kind, name, "")) for name in named}
        lines += [f"  {kind.kind}: {' '.join(name for name in named if not nested[name])}"]
        lines += [f"    {name}.: {' '.join(each)}" for name, each in nested.items() if each]
    parser.epilog = "\n".join(lines)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"--file '{file}' can't be read: {error}") from None


def _nested(kind: str, flat: dict[str, Any]) -> dict[str, Any]:
    """Put `config.steps`, and `steps` where only the config has it, into their places."""
    spec: dict[str, Any] = {"kind": kind}
    own, config = known_fields((kind, "")), known_fields((kind, "config", ""))
    for key, value in flat.items():
        its = key in config or (key not in own and bool(get_close_matches(key, config)))
        path = ["config", key] if its and "." not in key and key not in own else key.split(".")
        place = spec
        for name in path[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ValueError(f"'{key}': '{name}' has a value of its own already")
        place[path[-1]] = _json(value)
    return spec


def _json(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"'{value}' is no JSON: {error}") from None


def _watch(server: RestClient, job_id: str, as_json: bool) -> int:
    server.get(f"/v1/jobs/{job_id}")
    for event in server.events(job_id):
        if as_json:
            print(json.dumps({"id": event.id, "event": event.kind, "data": event.data}), flush=True)
        else:
            _print(event)
    ended = server.get(f"/v1/jobs/{job_id}")
    if ended["status"] == "succeeded":
        return 0
    print(f"{job_id} {ended['status']}" + (f": {ended['error']}" if ended["error"] else ""), file=sys.stderr)
    return REJECTED


def _print(event: RemoteEvent) -> None:
    data = event.data
    if event.kind == "progress":
        print(f"{data.get('done')}/{data.get('total')} {data.get('message', '')}".rstrip(), flush=True)
    elif event.kind == "status":
        print(data.get("status"), flush=True)
    else:
        said = " ".join(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
                        for name, value in data.items())  # fmt: skip
        print(f"{event.kind} {said}", flush=True)


def _change(server: RestClient, options: argparse.Namespace) -> int:
    changed = server.post(f"/v1/jobs/{options.job}/{options.verb}")
    show(changed) if options.json else print(f"{changed['id']} {changed['status']}")
    return 0
