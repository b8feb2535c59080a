"""One seed: server, robots and one loop job, then every version that was in production on the same initial states."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cells import start

from pirl_server.atomic_files import read_json, write_json
from pirl_server.demo.processes import Processes, free_port
from pirl_server.demo.rest import Rest
from pirl_server.demo.robot import Robot
from pirl_server.demo.terminal import Bar
from pirl_server.episodes.step_counts import step_counts
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import load_card
from pirl_server.registry.mcnemar import mcnemar
from pirl_server.registry.versions import Registry
from pirl_server.registry.wilson import wilson_interval

SEEDS_PER_ROBOT, SEEDS_PER_RUN = 2000, 10_000
REPORTED = 3
"""number of the list of initial states that the table is about; no round and no tuning uses it"""
AT_WORK = ("collect", "canary", "watch")
"""phases in which the robots run episodes"""
POLL_S, START_S = 0.5, 600.0
"""between two looks at the loop; and for a server to start, on a machine under any load"""


@dataclass(frozen=True)
class Run:
    """What a seed depends on, but for the code."""

    task: str
    method: str
    seed: int
    robots: int
    rounds: int
    episodes: int
    """of each round"""
    states: int
    """of the evaluation at the end"""
    gate_states: int
    canary: int
    watch: int
    operator: float
    """share of the episodes in which a scripted operator takes over when they have not succeeded by half time"""
    config: dict[str, Any] = field(default_factory=dict)
    """fields of EpisodesConfig"""

    @property
    def key(self) -> str:
        """Name of its folder: another setting is another run."""
        digest = sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.task}-{self.method}-{self.robots}x{self.episodes}-{self.seed}-{digest}"

    @property
    def spec(self) -> dict[str, Any]:
        """The loop job."""
        return {
            "kind": "loop",
            "task": self.task,
            "seed": self.seed,
            "rounds": self.rounds,
            "episodes_per_round": self.episodes,
            "explore_share": 1.0,
            "config": {"method": self.method} | self.config,
            "evaluation": {"episodes": self.gate_states},
            "canary": {"episodes": self.canary},
            "watch_episodes": self.watch,
        }


def carry_out(run: Run, out: Path, command: str) -> dict[str, Any]:
    """Return the numbers of the seed, made now by the command or found below `out`."""
    folder = out / run.key
    if not (folder / "result.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "result.json", _made(run, folder, out) | {"command": command})
    return dict(read_json(folder / "result.json"))


def without_takeovers(run: Run, out: Path) -> dict[str, Any]:
    """What the episodes of the run's first round teach without those that an operator helped in, by filtered_bc.

    Made now from the store of a run that is finished, or found beside it. The loop's first version is what they teach
    with them.
    """
    folder = out / run.key
    kept, root = folder / "without.json", folder / "server"
    if not kept.is_file():
        base = read_json(folder / "result.json")["versions"][0]["version"]
        with _server(folder, []) as (rest, _):
            select = {"versions": [base], "source": "policy"}
            spec = {"kind": "finetune_episodes", "task": run.task, "base": base, "seed": run.seed, "select": select}
            made, _ = rest.run_job(spec | {"config": {"method": "filtered_bc"} | run.config}, Bar("learn"))
            outcomes = [_outcomes(run, rest, root, out, version) for version in (base, made["version"])]
        write_json(kept, _compared(*outcomes) | {"version": made["version"]} | _lineage(root, made["version"]))
    return dict(read_json(kept))


@contextmanager
def _server(folder: Path, checkpoint: Sequence[str]) -> Iterator[tuple[Rest, int]]:
    """A policy server of this run: its REST client and the port for robots."""
    grpc, rest_port = free_port(), free_port()
    with Processes(folder / "logs", {}) as server:
        command = [sys.executable, "-m", "pirl_contract.commands.cli", "serve", *checkpoint]
        command += ["--root", str(folder / "server"), "--rest-port", str(rest_port), "--grpc-port", str(grpc)]
        server.start("server", [*command, "--stop-port", str(free_port())])
        rest = Rest(rest_port)
        rest.wait_until_ready(server.check, START_S)
        yield rest, grpc


def _made(run: Run, folder: Path, out: Path) -> dict[str, Any]:
    base, root = start(run.task, out), folder / "server"
    began = time.monotonic()
    with _server(folder, [] if (root / MODELS).is_dir() else [str(base)]) as (rest, grpc):
        job = _with_robots(run, folder, grpc, rest)
        loop, loop_s = job["result"], time.monotonic() - began
        versions = [loop["rounds"][0]["base"]]
        versions += [each["candidate"] for each in loop["rounds"] if each["outcome"] == "promoted"]
        outcomes = {version: _outcomes(run, rest, root, out, version) for version in versions}
        lineages = {version: _lineage(root, version) for version in versions}
    return {
        "plan": asdict(run),
        "seed": run.seed,
        "robots": run.robots,
        "versions": [_compared(outcomes[versions[0]], outcomes[each]) | {"version": each} for each in versions],
        "rounds": _rounds(loop["rounds"], job["created"]),
        "lineages": lineages,
        "robot_minutes": loop["robot_minutes"],
        "loop_s": loop_s,
        "wall_s": time.monotonic() - began,
    }


def _with_robots(run: Run, folder: Path, grpc: int, rest: Rest) -> dict[str, Any]:
    """Run the loop job while the robots run episodes; return the job. One that was stopped continues."""
    found = [job for job in rest.get("/v1/jobs?limit=100")["data"] if job["spec"]["kind"] == "loop"]
    if found and found[0]["status"] == "succeeded":
        return dict(found[0])
    fleets: list[Processes] = []
    homes = [folder / f"robot-{number}" for number in range(run.robots)]
    try:
        for number, home in enumerate(homes):
            fleets.append(_robot(run, home, number, grpc))
        job = found[0] if found else rest.post("/v1/jobs", run.spec)
        shown = ""
        while (job := rest.get(f"/v1/jobs/{job['id']}"))["status"] in ("queued", "running"):
            for fleet in fleets:
                fleet.check()
            result = job["result"] or {}
            phase = result.get("phase", AT_WORK[0])
            _rest(homes, phase not in AT_WORK)
            if (line := f"seed {run.seed}: round {result.get('round', 0)}, {phase}") != shown:
                print(line, file=sys.stderr, flush=True)
                shown = line
            time.sleep(POLL_S)
        if job["status"] != "succeeded":
            raise RuntimeError(f"loop job {job['id']} {job['status']}: {job['error']}")
        return job
    finally:
        for fleet in fleets:
            fleet.__exit__(None, None, None)


def _rest(homes: Sequence[Path], resting: bool) -> None:
    """Let no episode begin while the server learns and compares: robots and jobs share this machine's cores."""
    for home in homes:
        if resting:
            Robot.pause_file(home).touch()
        else:
            Robot.pause_file(home).unlink(missing_ok=True)


def _robot(run: Run, home: Path, number: int, grpc: int) -> Processes:
    domain = int(os.environ.get("ROS_DOMAIN_ID", 1 + os.getpid() % 100)) + number
    environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(domain)}
    processes = Processes(home, environment)
    robot = Robot.find(
        processes,
        run.task,
        f"127.0.0.1:{grpc}",
        step_on_command=True,
        robot_id=f"arm-{number}",
        helped=run.operator,
        operator_seed=run.seed * 100 + number,
    )
    try:
        robot.start()
        log = processes.log("episodes")
        done = log.read_text().count("\nepisode ") + 1 if log.is_file() else 0
        first = 100_000 + run.seed * SEEDS_PER_RUN + number * SEEDS_PER_ROBOT + done
        robot.begin("episodes", 1_000_000, first, home, record=False)
    except BaseException:
        processes.__exit__(None, None, None)
        raise
    return processes


def _outcomes(run: Run, rest: Rest, root: Path, out: Path, version: str) -> list[bool]:
    """Success on each of the reported states, measured once for a version."""
    kept = out / "outcomes" / f"{version}-{run.states}.json"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        spec = {"kind": "evaluate", "task": run.task, "version": version, "seed": REPORTED, "episodes": run.states}
        result, _ = rest.run_job(spec, Bar("evaluate"))
        found = Registry(root / MODELS).evaluations.of(version)
        outcomes = [each for each in found if each.list_hash == result["list_hash"]][-1].outcomes
        assert outcomes is not None
        write_json(kept, {"success": [bool(each) for each in outcomes]})
    return [bool(each) for each in read_json(kept)["success"]]


def _lineage(root: Path, version: str) -> dict[str, str]:
    """What its checkpoint says of its making, and which share of the steps that it was learnt from a human drove."""
    lineage = dict(load_card(Registry(root / MODELS).get(version).path).lineage)
    if "episodes_created" in lineage:
        last, store = lineage["episodes_created"].split(" to ")[1], EpisodeStore(root / EPISODES)
        counts = [step_counts(store.root / each.path) for each in store.newest_first() if each.created <= last]
        human = sum(each.human for each in counts)
        lineage["human_share"] = f"{human / (human + sum(each.policy for each in counts)):.4f}"
    return lineage


def _rounds(rounds: Sequence[dict[str, Any]], began: str) -> list[dict[str, Any]]:
    """The loop's rounds, with the wall time from its begin to each end."""
    start_s = datetime.fromisoformat(began).timestamp()
    return [each | {"wall_s": datetime.fromisoformat(each["ended"]).timestamp() - start_s} for each in rounds]


def _compared(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    paired, n = mcnemar(before, after), len(after)
    return {
        "success": sum(after) / n,
        "interval": list(wilson_interval(sum(after), n)),
        "n": n,
        "gained": paired.gained,
        "lost": paired.lost,
        "p": paired.p,
    }
