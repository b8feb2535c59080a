"""What one robot waits for a policy that costs nothing: the service alone. The routes take turns."""

from __future__ import annotations

from collections.abc import Iterable

from payloads import PAYLOADS
from rig import BARE, Rig, percentiles

Row = dict[str, float | str]
SLOW = {"lerobot, floor 0": 0.3, "lerobot, as shipped": 0.1}
"""share of the calls, for routes that would take most of the time; the default floor alone is 33 ms"""


def latencies(rig: Rig, rounds: int, calls: int, warm_up: int, payloads: Iterable[str] = tuple(PAYLOADS)) -> list[Row]:
    """One row per payload and route: percentiles in ms, CPU-milliseconds per call, calls."""
    rows: list[Row] = []
    for payload in payloads:
        # without images there is nothing to share, and only then is a bare stream's message as long as ours
        other = BARE if PAYLOADS[payload].cameras else "ours, shared memory"
        names = [name for name in rig.routes() if name != other]
        spans: dict[str, list[float]] = {name: [] for name in names}
        cpu_s = {name: [0.0, 0.0] for name in names}
        for name in names:
            process, key = rig.robots(name, payload, 0.0)
            process.ask("calls", key=key, times=_share(name, warm_up))
        for turn in range(rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                before = rig.cpu_s(name)
                process, key = rig.robots(name, payload, 0.0)
                spans[name] += process.ask("calls", key=key, times=_share(name, calls))
                for i, (now, then) in enumerate(zip(rig.cpu_s(name), before)):
                    cpu_s[name][i] += now - then
        rows += [_row(payload, name, spans[name], cpu_s[name]) for name in names]
    return rows


def _share(name: str, calls: int) -> int:
    return max(1, round(calls * SLOW.get(name, 1.0)))


def _row(payload: str, name: str, spans: list[float], cpu_s: list[float]) -> Row:
    server_ms, robot_ms = (round(1e3 * seconds / len(spans), 2) for seconds in cpu_s)
    cpu = {"server CPU ms": server_ms, "robot CPU ms": robot_ms, "calls": len(spans)}
    return {"payload": payload, "route": name, "min ms": round(min(spans), 3), **percentiles(spans), **cpu}
