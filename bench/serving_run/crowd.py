"""Many robots and a policy that takes its time; and how long the server's health takes to be told meanwhile."""

from __future__ import annotations

from typing import Any

from latency import Row
from rig import ROUTES, Rig, percentiles

PAYLOAD = "3x224"
FEW = ("ours, unary", "ours, session", "ours, openpi's client", "openpi", "lerobot, floor 0")
LEROBOT_ROBOTS = 4
"""its server has four threads, a robot that waits for actions holds one, and its observation needs another"""


def crowds(rig: Rig, models_ms: list[float], robots: list[int], seconds: float) -> list[Row]:
    """Robots that ask again at once: chunks per second of all of them, and what each waits."""
    rows: list[Row] = []
    for model_ms in models_ms:
        for count in robots:
            for name in _routes(rig, count):
                row, _ = _measured(rig, name, model_ms, count, seconds, 0.0)
                rows.append(row)
    return rows


def paced(rig: Rig, model_ms: float, robots: int, rate_hz: float, seconds: float) -> list[Row]:
    """Robots that ask at a rate; `in time` is the share answered within two model times of all that was due."""
    rows: list[Row] = []
    for name in _routes(rig, robots):
        row, answer = _measured(rig, name, model_ms, robots, seconds, rate_hz)
        spans = [span for each in answer["spans"] for span in each]
        in_time = sum(span <= 2 * model_ms for span in spans)
        row["due"] = round(robots * rate_hz * seconds)
        row["in time %"] = round(100 * in_time / max(1, len(spans) + sum(answer["failures"].values())), 1)
        row["max ms"] = round(max(spans, default=0.0), 1)
        rows.append(row)
    return rows


def _routes(rig: Rig, robots: int) -> list[str]:
    names = [name for name in rig.routes() if name in FEW]
    return [name for name in names if robots <= LEROBOT_ROBOTS or ROUTES[name].server != "lerobot_server"]


def _measured(
    rig: Rig, name: str, model_ms: float, robots: int, seconds: float, rate_hz: float
) -> tuple[Row, dict[str, Any]]:
    process, key = rig.robots(name, PAYLOAD, model_ms, robots)
    process.ask("crowd", key=key, robots=robots, seconds=0.3)
    health = _tell_probe(rig, name, model_ms, seconds)
    answer = process.ask("crowd", key=key, robots=robots, seconds=seconds, rate_hz=rate_hz)
    spans = [span for each in answer["spans"] for span in each]
    failed = sum(answer["failures"].values())
    row: Row = {
        "model ms": model_ms,
        "robots": robots,
        "route": name,
        "chunks/s": round(len(spans) / answer["seconds"], 1),
    }
    row |= percentiles(spans) | {"failed": failed}
    if health:
        row |= {f"health {kind}": value for kind, value in percentiles(rig.probe.reply()).items() if kind != "p95 ms"}
    return row, answer


def _tell_probe(rig: Rig, name: str, model_ms: float, seconds: float) -> bool:
    """Ask for health at 10 Hz while the robots ask for chunks; lerobot has no such call."""
    if ROUTES[name].server == "lerobot_server":
        return False
    kind = "http" if ROUTES[name].path == "openpi" else "grpc"
    rig.probe.tell(kind, port=rig.port(name, PAYLOAD, model_ms), seconds=seconds)
    return True
