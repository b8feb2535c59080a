"""How soon does the REST API answer with many jobs and episodes, while robots are served and others follow events?

    python bench/api.py [--quick] [--json] [--write FILE]

`pirl serve` as a process with tokens, the shipped policy on the CPU, 10,000 jobs, 100,000 episodes. Each client is a
process of its own.

1. Every read, one after the other over one connection that is kept, in turns: without robots, with eight robots, again
   without, and so on. Beside the times the ratio of each read's p99 to that of a health check in the same turns.
2. Fifty clients follow a running job of 20 events a second. In turns, they alone, and the same beside fifty that ask
   for the events of a job with many and never read, once their buffers are full: how late events come, how long reads
   take, chunks of the robots, memory of the server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "api_run"))
sys.path.insert(0, str(Path(__file__).parent / "doors_run"))

from whole import Whole
from world import past_episodes, past_jobs

from pirl_server.jobs.events import EventLog
from pirl_server.paths import JOBS

HERE = Path(__file__).parent / "api_run"
ROBOTS, EVENT_HZ, HALF, SETTLE_S = 8, 20.0, 50, 12.0
HISTORY = 3000
"""events of 2 kB of the job that silent clients follow: more than their buffers take"""
FILLER = {f"metric_{number}": 0.123456789 for number in range(60)}
"""2 kB of an event"""
Figures = dict[str, float]


class Helper:
    """A process of this benchmark that answers a line with one of JSON."""

    def __init__(self, script: str, *words: object) -> None:
        command = [sys.executable, str(HERE / script), *map(str, words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return line

    def count(self) -> dict[str, float]:
        self.tell("count")
        return dict(json.loads(self.answer()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


@contextmanager
def helper(script: str, *words: object) -> Iterator[Helper]:
    made = Helper(script, *words)
    try:
        yield made
    finally:
        made.close()


def reads(ids: list[str], episode: str) -> dict[str, str]:
    """Name and path of every read."""
    middle = ids[len(ids) // 2]
    return {
        "health": "/healthz",
        "info": "/v1/info",
        "jobs, newest": "/v1/jobs",
        "jobs, from the middle": f"/v1/jobs?after={middle}&limit=100",
        "jobs, failed": "/v1/jobs?status=failed",
        "jobs, running": "/v1/jobs?status=running",
        "job": f"/v1/jobs/{middle}",
        "log of a job": f"/v1/jobs/{middle}/log",
        "episodes, newest": "/v1/episodes",
        "episodes, a hundred": "/v1/episodes?limit=100",
        "episodes of a robot that failed": "/v1/episodes?robot=arm-3&success=false",
        "episodes with a word that none has": "/v1/episodes?text=nothing",
        "episode": f"/v1/episodes/{episode}",
        "frame": f"/v1/episodes/{episode}/frames/base/1.jpg",
        "steps": f"/v1/episodes/{episode}/steps",
        "models": "/v1/models",
        "lineage": "/v1/models/production/lineage",
        "robots": "/v1/robots",
        "routing": "/v1/routing",
        "system": "/v1/system",
        "metrics": "/metrics",
    }


def time_reads(web: httpx.Client, paths: dict[str, str], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            began = time.perf_counter()
            answer = web.get(path)
            times[name].append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, (path, answer.text)
            time.sleep(0.011)  # below the token's rate
    return times


def percentile(times: list[float], share: float) -> float:
    return round(float(np.percentile(times, share)), 2)


def beside_robots(server: Whole, web: httpx.Client, paths: dict[str, str], options: Any) -> Figures:
    """Part 1."""
    alone: dict[str, list[float]] = {name: [] for name in paths}
    beside: dict[str, list[float]] = {name: [] for name in paths}
    chunks: list[dict[str, float]] = []
    time_reads(web, paths, 2)
    for _ in range(options.turns):
        add(alone, time_reads(web, paths, options.rounds))
        with helper("robots.py", f"127.0.0.1:{server.grpc_port}", server.robot, ROBOTS, options.rate) as robots:
            time.sleep(1.0)
            robots.tell("begin")
            add(beside, time_reads(web, paths, options.rounds))
            chunks.append(robots.count())
    figures: Figures = {}
    for name in paths:
        figures[f"{name}: p50 alone, ms"] = percentile(alone[name], 50)
        figures[f"{name}: p99 alone, ms"] = percentile(alone[name], 99)
        figures[f"{name}: p50 beside {ROBOTS} robots, ms"] = percentile(beside[name], 50)
        figures[f"{name}: p99 beside {ROBOTS} robots, ms"] = percentile(beside[name], 99)
        figures[f"{name}: p99 over that of health, beside robots"] = round(
            percentile(beside[name], 99) / percentile(beside["health"], 99), 2
        )
    every = [each for times in beside.values() for each in times]
    figures[f"all reads: p99 beside {ROBOTS} robots, ms"] = percentile(every, 99)
    figures["chunks a second of all robots"] = round(float(np.mean([each["hz"] for each in chunks])), 1)
    figures["chunk, p99, ms"] = round(max(each["p99_ms"] for each in chunks), 1)
    figures["chunks failed"] = sum(each["failures"] for each in chunks)
    return figures


def add(into: dict[str, list[float]], more: dict[str, list[float]]) -> None:
    for name, times in more.items():
        into[name] += times


class Talking:
    """A job that reports at a rate, written by this process: for the server it is paused."""

    def __init__(self, root: Path, job: str) -> None:
        self.job, self._log = job, EventLog(root / JOBS / job)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _talk(self) -> None:
        while not self._over.wait(1 / EVENT_HZ):
            self._log.append("metrics", {"time": time.time()} | FILLER)


def beside_followers(
    server: Whole, web: httpx.Client, paths: dict[str, str], paused: list[str], options: Any
) -> Figures:
    """Part 2."""
    late: dict[str, list[dict[str, float]]] = {"alone": [], "beside": []}
    times: dict[str, list[float]] = {"alone": [], "beside": []}
    memory: dict[str, list[int]] = {"alone": [], "beside": []}
    long_one = paused.pop()
    log = EventLog(server.root / JOBS / long_one)
    for _ in range(HISTORY):
        log.append("metrics", FILLER)
    few = {name: paths[name] for name in ("health", "jobs, newest", "episodes, newest", "episode", "models")}
    with helper("robots.py", f"127.0.0.1:{server.grpc_port}", server.robot, ROBOTS, options.rate) as robots:
        robots.tell("begin")
        for _ in range(options.turns):
            for name, silent in (("alone", 0), ("beside", HALF)):
                talking = Talking(server.root, paused.pop())
                words = (server.rest_port, server.follower, talking.job, HALF, long_one, silent)
                with helper("followers.py", *words) as followers:
                    time.sleep(SETTLE_S)
                    followers.count()
                    found = time_reads(web, few, options.rounds * 3)
                    times[name] += [each for part in found.values() for each in part]
                    late[name].append(followers.count())
                    memory[name].append(server.memory())
                talking.close()
        chunks = robots.count()
    figures: Figures = {}
    for name, said in (("alone", "50 that read"), ("beside", "50 that read, 50 that do not")):
        figures[f"{said}: events late by, p50, ms"] = round(float(np.mean([each["p50_ms"] for each in late[name]])), 1)
        figures[f"{said}: events late by, p99, ms"] = round(float(np.mean([each["p99_ms"] for each in late[name]])), 1)
        figures[f"{said}: least events of one client"] = min(each["least"] for each in late[name])
        figures[f"{said}: reads, p99, ms"] = percentile(times[name], 99)
        figures[f"{said}: memory of the server, MiB"] = round(max(memory[name]) / 2**20, 1)
    first, second = "50 that read", "50 that read, 50 that do not"
    for what in ("events late by, p99, ms", "reads, p99, ms", "memory of the server, MiB"):
        figures[f"with 50 that do not read over without: {what.removesuffix(', ms').removesuffix(', MiB')}"] = round(
            figures[f"{second}: {what}"] / figures[f"{first}: {what}"], 3
        )
    figures["chunks failed beside followers"] = chunks["failures"]
    return figures


def measure(options: Any) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ids, episode = past_jobs(root, options.jobs, 2 * options.turns + 1), past_episodes(root, options.episodes)
        print(f"{options.jobs} jobs and {options.episodes} episodes are written", file=sys.stderr)
        server = Whole(root, 4096)
        try:
            server.follower = server.tokens.create("follower", ["operator"])
            reader = server.tokens.create("reader", ["operator"])
            headers = {"Authorization": f"Bearer {reader}"}
            url = f"http://127.0.0.1:{server.rest_port}"
            with httpx.Client(base_url=url, headers=headers, timeout=120.0, trust_env=False) as web:
                began = time.perf_counter()
                while web.get("/v1/episodes").status_code == 503:  # the index of what was written beside it is made
                    time.sleep(0.5)
                print(f"first list of episodes: {time.perf_counter() - began:.1f} s", file=sys.stderr)
                paths = reads(ids[: options.jobs], episode)
                return beside_robots(server, web, paths, options) | beside_followers(
                    server, web, paths, ids[options.jobs :], options
                )
        finally:
            server.close()


def page(figures: Figures, options: Any) -> str:
    """The results as Markdown."""
    columns = ("p50 alone, ms", "p99 alone, ms", f"p50 beside {ROBOTS} robots, ms", f"p99 beside {ROBOTS} robots, ms")
    columns += ("p99 over that of health, beside robots",)
    names = [name.rpartition(": ")[0] for name in figures if name.endswith(f": {columns[0]}")]
    lines = [
        "# REST API", "",
        f"`python bench/api.py --write docs/results/api.md`: `pirl serve` with {options.jobs:,} jobs and"
        f" {options.episodes:,} episodes, the shipped policy on the CPU, {ROBOTS} robots at {options.rate:g} Hz.",
        "Two cores, which others used as well: compare columns, which were measured in turns.", "",
        " | ".join(("| read", *columns)) + " |", "|---" * (len(columns) + 1) + "|",
    ]  # fmt: skip
    for name in names:
        lines.append(" | ".join((f"| {name}", *(f"{figures[f'{name}: {column}']:g}" for column in columns))) + " |")
    shown = {f"{name}: {column}" for name in names for column in columns}
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:g} |" for name, value in figures.items() if name not in shown]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 jobs, 2,000 episodes, one short turn")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the results as a page")
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="of each robot (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="default: 10,000; quick: 500")
    parser.add_argument("--episodes", type=int, help="default: 100,000; quick: 2,000")
    options = parser.parse_args()
    jobs, episodes, options.turns, options.rounds = (500, 2_000, 1, 10) if options.quick else (10_000, 100_000, 4, 40)
    options.jobs, options.episodes = options.jobs or jobs, options.episodes or episodes
    began = time.perf_counter()
    figures = measure(options)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.write:
        options.write.write_text(page(figures, options))
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:70}{value:>12.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
