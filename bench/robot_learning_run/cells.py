"""One cell: log N episodes of a base, train by a method, evaluate both on the same states. All of it is kept.

What several cells share (bases, logs, rates of bases) is made once; what is finished is found again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from fleet import Help, log_episodes, of_contract

from pirl_server import simulation
from pirl_server.atomic_files import read_json, write_json
from pirl_server.config.fields import parse
from pirl_server.config.training import EpisodesConfig, SftConfig
from pirl_server.demo.run import BASE
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.checkpoint import checkpoint_version, load_card
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.mcnemar import mcnemar
from pirl_server.registry.wilson import wilson_interval
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.evaluate import evaluate
from pirl_server.training.progress import Printed
from pirl_server.training.seeds import ROBOT, evaluation_seeds
from pirl_server.training.supervised.sft import new_card, sft

REPORTED, TUNED = evaluation_seeds(3), evaluation_seeds(4)
"""states of the tables; settings were chosen on the others"""
SEEDS_PER_LOG = 2000
STARTS: dict[str, dict[str, Any]] = {
    "PullCube-v1": {"demonstrations": 5, "steps": 200},
    "PickCube-v1": {"demonstrations": 13, "steps": 450},
    "StackCube-v1": {"demonstrations": 30, "steps": 500},
}
"""fields of SftConfig for bases of 20 to 60 %; PushCube-v1 has the shipped one"""
TASKS = ("PushCube-v1", *STARTS)
WATCHED = {"dagger": 0.5}
"""share of the episodes in which a person takes over, by method: the scripted expert, after half of the time"""
Control = Literal["shuffled", "flipped"]
"""what is done to the labels of a log, after which nothing is to be learnt from it"""
CONTROLS: tuple[Control, ...] = get_args(Control)


@dataclass(frozen=True)
class Plan:
    """What a cell depends on, but for the code."""

    task: str
    method: str
    seed: int
    episodes: int
    states: int
    """of the evaluation"""
    rounds: int = 1
    """each logs `episodes` more by the version before it"""
    tuning: bool = False
    """evaluate on the states for choosing settings, by the lean stepper, not on those of the tables"""
    config: dict[str, Any] = field(default_factory=dict)
    """fields of EpisodesConfig"""
    control: Control | None = None
    lean: bool = False
    """evaluate by the lean stepper, whose states and success flags are the simulator's"""

    @property
    def key(self) -> str:
        """Name of its folder: another setting is another cell."""
        digest = sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.task}-{self.method}-{self.seed}-{self.episodes}-{digest}"


def carry_out(plan: Plan, out: Path) -> dict[str, Any]:
    """Return the cell's numbers, made now or found below `out`."""
    folder = out / "cells" / plan.key
    if not (folder / "result.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\n{plan.task} {plan.method} seed {plan.seed}, {plan.episodes} episodes", file=sys.stderr)
        write_json(folder / "result.json", _made(plan, out, folder))
    return dict(read_json(folder / "result.json"))


def _made(plan: Plan, out: Path, folder: Path) -> dict[str, Any]:
    base, began = start(plan.task, out), time.monotonic()
    before = outcomes(plan, base, out)
    versions, logged, rounds = [base], list[Episode](), list[dict[str, Any]]()
    for number in range(plan.rounds):
        round_began = time.monotonic()
        logged += controlled(log(plan, versions[-1], number, out), plan.control, plan.seed)
        made = folder / f"round-{number}"
        archive = {checkpoint_version(each): each for each in versions}
        method = {"method": plan.method} | plan.config
        if not (made / "card.json").is_file():
            finetune_episodes(
                versions[-1], made, logged, parse(EpisodesConfig, method), plan.seed, Printed(), archive=archive.get
            )
        versions.append(made)
        after = outcomes(plan, made, out)
        rounds.append(compared(before, after) | of_log(logged) | {"wall_s": time.monotonic() - round_began})
    last = rounds[-1]
    return {
        "plan": asdict(plan),
        "seed": plan.seed,
        "episodes": len(logged),
        **last,
        "wall_s": time.monotonic() - began,
        "rounds": rounds,
        "lineage": dict(load_card(versions[-1]).lineage),
    }


def start(task: str, out: Path) -> Path:
    """The base of a task, the same for every seed and method."""
    if task not in STARTS:
        return BASE
    folder = out / "bases" / task
    if not (folder / "card.json").is_file():
        config = parse(SftConfig, STARTS[task])
        card = new_card(config.preset, task, simulation.contract(task), simulation.instructions(task))
        make = partial(simulation.fast_env, task, False)
        sft(folder, card, make, simulation.expert(task), simulation.max_steps(task), config, 0, Printed())
    return folder


def log(plan: Plan, version: Path, number: int, out: Path) -> list[Episode]:
    """Episodes of one version, by seed and round: methods that need the same get the same.

    A short log is the beginning of a longer one.
    """
    share = WATCHED.get(plan.method, 0.0)
    first = ROBOT.start + (10 + plan.seed) * SEEDS_PER_LOG + number * plan.episodes
    folder = out / "logs" / f"{plan.task}-{checkpoint_version(version)}-{first}-{share:g}"
    store, done = EpisodeStore(folder), folder / "done"
    there, seeds = int(done.read_text()) if done.is_file() else 0, range(first, first + plan.episodes)
    if missing := seeds[there:]:
        make, steps = partial(simulation.fast_env, plan.task, False), simulation.max_steps(plan.task)
        help_ = Help(simulation.expert(plan.task), steps // 2, share) if share else None
        for episode in log_episodes(FlowPolicy.load(version), make, steps, missing, help_=help_):
            store.write(episode)
        done.write_text(str(plan.episodes))
    contract = load_card(version).contract
    return [of_contract(contract, store.open(f"{seed:032x}")) for seed in seeds]


def controlled(episodes: Sequence[Episode], control: Control | None, seed: int) -> list[Episode]:
    """The episodes with their labels dealt out anew or exchanged; nothing else of them changes."""
    labels = [each.info.success for each in episodes]
    if control == "shuffled":
        labels = [labels[number] for number in np.random.default_rng(seed).permutation(len(labels))]
    elif control == "flipped":
        labels = [None if label is None else not label for label in labels]
    return [replace(each, info=replace(each.info, success=label)) for each, label in zip(episodes, labels)]


def outcomes(plan: Plan, checkpoint: Path, out: Path) -> list[bool]:
    """Success on each of the evaluation's states, measured once for a version."""
    seeds, steps = (TUNED if plan.tuning else REPORTED)[: plan.states], simulation.max_steps(plan.task)
    kind = ("tuning" if plan.tuning else "report") + ("-lean" if plan.lean else "")
    name = f"{checkpoint_version(checkpoint)}-{kind}-{plan.states}.json"
    kept = out / "outcomes" / name
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        if plan.tuning or plan.lean:
            make = partial(simulation.fast_env, plan.task, False)
            played = log_episodes(FlowPolicy.load(checkpoint), make, steps, seeds, explore=False)
            found = [bool(each.info.success) for each in played]
        else:
            results = evaluate(checkpoint, partial(simulation.reference_env, plan.task, False), steps, seeds, Printed())
            found = [results[seed].success for seed in seeds]
        write_json(kept, {"success": found})
    return [bool(each) for each in read_json(kept)["success"]]


def compared(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """Rates with their Wilson intervals, and the exact McNemar test of the pairs."""
    paired, n = mcnemar(before, after), len(before)
    return {
        "before": sum(before) / n,
        "after": sum(after) / n,
        "n": n,
        "p": paired.p,
        "gained": paired.gained,
        "lost": paired.lost,
        "before_interval": list(wilson_interval(sum(before), n)),
        "after_interval": list(wilson_interval(sum(after), n)),
    }


def of_log(logged: Sequence[Episode]) -> dict[str, float]:
    """What the log was."""
    steps = sum(len(each.steps.reward) / each.info.contract.rate_hz for each in logged)
    return {"logged_successes": sum(bool(each.info.success) for each in logged), "robot_minutes": steps / 60.0}


torch.set_num_threads(1)
