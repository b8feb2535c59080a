"""How fast are episodes written and read, beside other layouts, lerobot itself and the build before?

    python bench/episodes.py [--quick] [--json] [--write docs/results/episodes.md] [--only NAME ...] [--peers DIR]

Each layout runs in a process of its own and all take turns, so that a disturbance meets all of them. The build before
one file per episode comes out of git (9f9f3e9); lerobot 0.6.1 out of docker/install_oracles.sh, and is skipped without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "episodes_run"))

from page import page

ROOT = Path(__file__).parents[1]
BEFORE = "9f9f3e9"
LAYOUTS = ("pirl", "pirl-jpeg", "before", "hdf5", "zarr buffer", "parquet + video", "lerobot")
READS = ("image", "window", "whole")


class Worker:
    """A process with one layout."""

    def __init__(self, layout: str, folder: Path, steps: int, side: int, python: str, tree: Path) -> None:
        paths = f"{tree / 'server'}:{tree / 'msg'}:{ROOT / 'bench' / 'episodes_run'}"
        environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "SVT_LOG": "1"}
        script, size = ROOT / "bench" / "episodes_run" / "worker.py", (str(steps), str(side))
        folder.mkdir(parents=True)
        self.folder, self._log = folder, (folder.with_suffix(".log")).open("w")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(script), layout, str(folder), *size],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
        )  # fmt: skip
        self._answer()

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"it ended: {Path(self._log.name).read_text()[-2000:]}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def start(names: list[str], folder: Path, steps: int, side: int, peers: Path) -> dict[str, Worker]:
    """One for each layout that can run here; say which can't."""
    before, found = folder / "tree", dict[str, Worker]()
    before.mkdir()
    archive = subprocess.run(["git", "archive", BEFORE, "server", "msg"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "x", "-C", str(before)], input=archive.stdout, check=True)
    for name in names:
        python = str(peers / "lerobot/bin/python") if name == "lerobot" else sys.executable
        if not Path(python).exists():
            print(f"lerobot skipped: no {python}, see docker/install_oracles.sh", file=sys.stderr)
            continue
        tree = before if name == "before" else ROOT
        found[name] = Worker(name, folder / name.replace(" ", "-"), steps, side, python, tree)
    return found


def measure(workers: dict[str, Worker], episodes: int, rounds: int, batches: int) -> dict[str, dict[str, Any]]:
    """Figures by layout: milliseconds, unless they say otherwise."""
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in workers}
    figures: dict[str, dict[str, Any]] = {name: {} for name in workers}
    for number in range(episodes):
        for name, worker in workers.items():
            wall, cpu, prepared = worker.ask("write", number=number)
            times[name]["commit"].append(wall)
            times[name]["commit CPU"].append(cpu)
            times[name]["before the end"].append(prepared)
    for name, worker in workers.items():
        used, entries = worker.ask("seal")
        figures[name] |= {"MB an episode": used / episodes / 1e6, "entries an episode": entries / episodes}
        figures[name]["mean error of a pixel"] = worker.ask("check", number=0, seed=1)
    for turn in range(rounds):
        for name, worker in workers.items():
            for read in READS:
                if read == "whole" and turn % 5:
                    continue
                for repeat in range(1 if read == "whole" else 4):
                    wall, cpu = worker.ask(read, number=turn % episodes, seed=4 * turn + repeat)
                    times[name][read].append(wall)
                    times[name][f"{read} CPU"].append(cpu)
    for _ in range(3):
        for name, worker in workers.items():
            seconds, _ = worker.ask("batches", count=batches, written=episodes)
            times[name]["windows a second"].append(batches * 8 / seconds)
    for name, columns in times.items():
        for column, values in columns.items():
            scale = 1.0 if column == "windows a second" else 1e3
            figures[name][column] = float(np.median(values)) * scale
            figures[name][f"{column} p99"] = float(np.quantile(values, 0.99)) * scale
    return figures


def beside(workers: dict[str, Worker], quick: bool) -> dict[str, Any]:
    """What is measured of ours alone, or of ours and the build before."""
    found: dict[str, Any] = {"enqueue": {}, "small": {}}
    runs = {name: list[dict[str, float]]() for name in ("before", "pirl") if name in workers}
    for turn in range(3):
        for name, each in runs.items():
            each.append(workers[name].ask("small", turn=turn))
    for name, each in runs.items():
        found["small"][name] = {figure: float(np.median([run[figure] for run in each])) for figure in each[0]}
    for name in ("pirl", "pirl-jpeg"):
        if name in workers:
            found["enqueue"][name] = [1e3 * each for each in workers[name].ask("enqueue")]
    if "pirl" in workers and not quick:
        found["long"] = workers["pirl"].ask("long")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: short episodes, fewer of everything")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("--write", type=Path, help="write the page there")
    parser.add_argument("--only", nargs="*", default=list(LAYOUTS), choices=LAYOUTS, help="these layouts")
    default = Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles"))
    parser.add_argument("--peers", type=Path, default=default, help="folder of the peers' environments")
    options = parser.parse_args()
    steps, side = (40, 96) if options.quick else (300, 224)
    episodes, rounds, batches = (2, 2, 2) if options.quick else (4, 8, 8)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        workers = start(options.only, Path(folder), steps, side, options.peers.expanduser())
        try:
            figures = measure(workers, episodes, rounds, batches)
            others = beside(workers, options.quick)
        finally:
            for worker in workers.values():
                worker.close()
    sizes = {"steps": steps, "side": side, "episodes": episodes, "load": round(os.getloadavg()[0], 1)}
    if options.json:
        print(json.dumps({"size": sizes, "layouts": figures, **others}))
    text = page(figures, others, sizes, quick=options.quick)
    if options.write:
        options.write.write_text(text)
    elif not options.json:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
