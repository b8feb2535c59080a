"""What was promised, as ratios within one run. The number in brackets is the promise."""

from __future__ import annotations

from latency import Row
from payloads import PAYLOADS

Parts = dict[str, list[Row]]


def goals(parts: Parts) -> dict[str, float]:
    """Goal -> what was measured; routes that did not run are left out."""
    found = _ratios({(row["payload"], row["route"]): float(row["p50 ms"]) for row in parts["one"]})
    for row in parts.get("eight", ()):
        found[f"8 robots at 10 Hz, asked and answered within 2 model times, %: {row['route']} [100]"] = row["in time %"]
    for row in parts.get("full", ()):
        if "health p99 ms" in row:
            found[f"health p99 under full load, ms: {row['route']} [< 50]"] = row["health p99 ms"]
    return {name: round(float(value), 2) for name, value in found.items()}


def _ratios(p50: dict[tuple[object, object], float]) -> dict[str, float | str]:
    session, shared, openpi, lerobot = "ours, session", "ours, shared memory", "openpi", "lerobot, floor 0"
    wanted = {
        "session / openpi, p50, state [<= 1.3]": ("state", session, openpi),
        "session / openpi, p50, 3x224 [<= 0.95]": ("3x224", session, openpi),
        "shared memory / openpi, p50, 2x480x640 [<= 0.35]": ("2x480x640", shared, openpi),
    }
    wanted |= {f"lerobot without floor / session, p50, {of} [>= 8]": (of, lerobot, session) for of in PAYLOADS}
    return {name: p50[of, a] / p50[of, b] for name, (of, a, b) in wanted.items() if (of, a) in p50 and (of, b) in p50}
