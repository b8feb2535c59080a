"""The rows as text: a page with tables, or one flat name per number."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from goals import Parts, goals
from latency import Row

KEYS = ("payload", "model ms", "robots", "route", "stage")

HEAD = """# Serving: beside openpi's and lerobot's servers

Reproduce: `docker/install_oracles.sh`, then `python bench/serving.py{quick} --write docs/results/serving.md`.
This page was written by that command: {date}, {machine}, load average {load} at its end; Python {python},
grpcio {grpcio}, websockets {websockets}, openpi-client {openpi}; lerobot 0.6.1 in an environment of its own.

Servers run on one core and robots on another, each in a process of its own. The policy returns zeros [50, 32] at once,
or after a sleep of the model time, which is the same for any number of robots in a batch. Images are noise. The
routes take turns, so that a disturbance meets all of them. `openpi` is its client from the package index, unmodified,
and its server's pattern: websockets, its msgpack, the policy called in the event loop. lerobot is its own
`PolicyServer` with zeros in place of the network and of the preparation of images, once without its floor of 33 ms and
once as shipped."""

SECTIONS = {
    "one": ("One robot, a policy of no cost", "From the call to the chunk in the robot's hands. CPU is per call."),
    "many": (
        "1 to 16 robots, models that take their time",
        "Each robot asks again as soon as it is answered; three cameras of 224 x 224. The server's health is asked\n"
        "for at 10 Hz meanwhile: `/healthz`, or the health service of gRPC. lerobot has neither; its server has four\n"
        "threads, of which a waiting robot holds one, so it is asked by four robots at most.",
    ),
    "eight": (
        "Eight robots at 10 Hz, a model of 100 ms per batch",
        "A question that falls due while its robot still waits falls away: old observations are of no use.\n"
        "One that just misses a batch waits for two model times in full: with what the wire takes it is over the\n"
        "line, by a few milliseconds at p99.",
    ),
    "full": ("Sixteen robots, no model time", "The server is as busy as it can be, and asked for its health at 10 Hz."),
}


WHERE_TIME_GOES = """\
Medians of time stamps at each station of a session's calls without images; `--stations` repeats this part alone. The
stamps cost time too; the routes of the table before have none. `gRPC, a bare stream` there carries bytes of the same
length between two Python processes and does nothing else: the floor of this transport.

{table}

What cannot be had: one thread owns the device, since CUDA graphs belong to a thread, so a request crosses to it and
back; gRPC's synchronous server needs one thread that reads a stream and one that writes it when either side may speak
first; its client has one that sends and one that receives, and ours reads beside them, since a stop may come when no
call waits. Logs, spans and metrics are not installed in this benchmark."""


def figures(parts: Parts) -> dict[str, float]:
    """One flat name per number."""
    flat: dict[str, float] = {}
    for part, rows in parts.items():
        for row in rows:
            where = ", ".join(f"{key} {row[key]}" for key in KEYS if key in row)
            numbers = {name: value for name, value in row.items() if name not in KEYS and not isinstance(value, str)}
            flat |= {f"{part}: {where}: {name}": float(value) for name, value in numbers.items()}
    return flat


def table(rows: Sequence[Row]) -> str:
    """Rows of any columns, as Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goal_table(found: Mapping[str, float]) -> str:
    """One line per goal."""
    return table([{"goal": name, "measured": value} for name, value in found.items()])


def page(parts: Parts, load: float, quick: bool) -> str:
    """The whole page."""
    head = HEAD.format(
        quick=" --quick" if quick else "",
        date=time.strftime("%Y-%m-%d"),
        machine=f"{platform.machine()} with {os.cpu_count()} cores",
        load=load,
        python=platform.python_version(),
        **{name: version(package) for name, package in _PACKAGES.items()},
    )
    pieces = [head, "## Goals", goal_table(goals(parts))]
    for part, (title, words) in SECTIONS.items():
        pieces += [f"## {title}", words, table(parts[part])]
        if part == "one":
            pieces += ["## Where a session's time goes", WHERE_TIME_GOES.format(table=table(parts["stations"]))]
    return "\n\n".join(pieces) + "\n"


_PACKAGES = {"grpcio": "grpcio", "websockets": "websockets", "openpi": "openpi-client"}
