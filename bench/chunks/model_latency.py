"""Milliseconds per chunk: ours beside each peer, same weights, same scene, medians of interleaved repeats.

An implementation whose chunk is not ours to 1e-4 is not timed: the benchmark stops.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from model_case import sized, write_case
from model_peers import FAMILIES, Worker, start

AGREEMENT = 1e-4
REPEATS = {"tiny": 3, "small": 2, "medium": 1, "full": 1}
"""chunks in a row before the next implementation's turn"""
FEW_ROUNDS = {"full": 2}
"""seconds per chunk"""


@dataclass(frozen=True)
class Asked:
    """One configuration."""

    family: str
    preset: str
    cameras: int
    steps: int
    as_robots_have_it: bool = False

    @property
    def label(self) -> str:
        scene = ", 1 absent, padded text" if self.as_robots_have_it else ""
        return f"{self.family} {self.preset}, {self.cameras} camera{'s'[: self.cameras - 1]}{scene}, K={self.steps}"

    def request(self, folder: Path, repeats: int) -> dict[str, Any]:
        """What a worker is sent."""
        return {
            "case": str(folder / f"{self.family}-{self.preset}.safetensors"),
            "cameras": self.cameras,
            "as_robots_have_it": self.as_robots_have_it,
            "steps": self.steps,
            "repeats": repeats,
        }


def configurations(*, quick: bool) -> list[Asked]:
    """Grouped by weights, so that each file is loaded once."""
    asked = []
    families = ("pi0", "pi05")
    for preset in ("tiny", "small") if quick else ("tiny", "small", "medium"):
        for family in families:
            for cameras in (2,) if quick else (1, 2, 3):
                asked += [Asked(family, preset, cameras, steps) for steps in ((10,) if quick else (4, 10))]
            if preset == "tiny" or not quick:
                asked.append(Asked(family, preset, 3, 10, as_robots_have_it=True))
    return asked + smolvla_configurations(quick=quick)


def smolvla_configurations(*, quick: bool) -> list[Asked]:
    """Its small size, and the one that lerobot has: seconds per chunk, so not for a quick run."""
    asked = [Asked("smolvla", "tiny", cameras, 10) for cameras in ((2,) if quick else (1, 2, 3))]
    asked.append(Asked("smolvla", "tiny", 3, 10, as_robots_have_it=True))
    if not quick:
        asked += [Asked("smolvla", "full", cameras, 10) for cameras in (1, 2, 3)]
        asked.append(Asked("smolvla", "full", 3, 10, as_robots_have_it=True))
    return asked


def latency(found: dict[str, str], *, threads: int, quick: bool, only: str = "") -> dict[str, float]:
    """Figures by name, of the configurations whose label begins with `only`.

    The last ones are the smallest speed-ups and the largest difference from a peer's chunk.
    """
    figures: dict[str, float] = {}
    rounds = 3 if quick else 5
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        workers = start(stack, found, threads)
        for asked in [each for each in configurations(quick=quick) if each.label.startswith(only)]:
            path = Path(asked.request(folder, 0)["case"])
            if not path.exists():
                parameters = write_case(path, sized(asked.preset, asked.family))
                figures[f"{asked.family} {asked.preset} parameters, millions"] = round(parameters / 1e6, 1)
            able = [worker for name, worker in workers.items() if asked.family in FAMILIES[name]]
            figures |= compare(able, asked, folder, min(rounds, FEW_ROUNDS.get(asked.preset, rounds)))
            print(f"measured: {asked.label}", file=sys.stderr)
        for worker in workers.values():
            assert worker.process.stdin is not None
            worker.process.stdin.close()
    return figures | summary(figures)


def compare(workers: list[Worker], asked: Asked, folder: Path, rounds: int) -> dict[str, float]:
    """Agreement first, then the times of one configuration."""
    chunks = {worker.name: np.array(worker.ask(**asked.request(folder, 2))["chunk"]) for worker in workers}
    figures: dict[str, float] = {}
    for name, chunk in chunks.items():
        difference = float(np.abs(chunk - chunks["ours"]).max())
        if not difference <= AGREEMENT:
            raise RuntimeError(f"{asked.label}: {name} and ours differ by {difference:.2e}, allowed {AGREEMENT}")
        if name != "ours":
            figures[f"{asked.label}: difference from {name}"] = float(f"{difference:.1e}")
    times: dict[str, list[tuple[float, float]]] = {worker.name: [] for worker in workers}
    request = asked.request(folder, REPEATS[asked.preset])
    for turn in range(rounds):
        for i in range(len(workers)):
            worker = workers[(i + turn) % len(workers)]
            reply = worker.ask(**request)
            times[worker.name] += zip(reply["wall_ms"], reply["cpu_ms"])
    wall, cpu = ({name: median(pair[i] for pair in pairs) for name, pairs in times.items()} for i in (0, 1))
    for name in times:
        figures[f"{asked.label}: {name} ms"] = round(wall[name], 1)
        figures[f"{asked.label}: {name} CPU ms"] = round(cpu[name], 1)
    for name in times.keys() - {"ours"}:
        figures[f"{asked.label}: speed-up over {name}"] = round(wall[name] / wall["ours"], 2)
        figures[f"{asked.label}: speed-up over {name}, CPU time"] = round(cpu[name] / cpu["ours"], 2)
    return figures


def summary(figures: dict[str, float]) -> dict[str, float]:
    """The worst of everything measured."""
    found: dict[str, float] = {}
    for ending, worst in (("speed-up over {}", min), ("speed-up over {}, CPU time", min), ("difference from {}", max)):
        for peer in ("transformers", "lerobot"):
            name = ending.format(peer)
            values = [value for figure, value in figures.items() if figure.endswith(f": {name}")]
            if values:
                found[f"{'smallest' if worst is min else 'largest'} {name}"] = worst(values)
    return found
