"""One run: supervised start, evaluation, RL, evaluation; its numbers and curve as JSON below the output folder."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from elsewhere import Elsewhere

from pirl_contract.protocols import MakeEnv
from pirl_server import simulation
from pirl_server.atomic_files import write_json
from pirl_server.config.fields import parse
from pirl_server.config.training import PpoConfig, SftConfig
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.registry.wilson import wilson_interval
from pirl_server.training.evaluate import evaluate
from pirl_server.training.progress import Printed
from pirl_server.training.seeds import evaluation_seeds
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.supervised.sft import new_card, sft


@dataclass(frozen=True)
class Plan:
    """All that a run depends on, but for the code."""

    task: str
    seed: int
    sft: dict[str, Any]
    ppo: dict[str, Any]
    evaluation: int
    """episodes"""
    label: str = ""
    """what this run is a case of, for tables that compare settings"""
    pretraining: dict[str, Any] = field(default_factory=dict)
    """`task` and `sft` of the policy that the supervised one begins with, if any; its seed is always 0"""

    @property
    def sees(self) -> bool:
        """Whether the policy has a camera."""
        return self.sft.get("preset", "tiny-state") != "tiny-state"

    @property
    def fast_env(self) -> MakeEnv:
        """What demonstrations and rollouts are made in: the same states as the simulator's own step, sooner."""
        return partial(simulation.fast_env, self.task, self.sees)

    @property
    def key(self) -> str:
        """Name of its folder: another setting is another run, and the same under another label is the same."""
        text = json.dumps(asdict(self) | {"label": ""}, sort_keys=True)
        return f"{self.folder}-{self.seed}-{sha256(text.encode()).hexdigest()[:10]}"

    @property
    def folder(self) -> str:
        """The task as part of a file name."""
        return self.task.replace("/", "-")


class Curve(Printed):
    """Keeps what each update reports."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | None]] = []

    def metrics(self, **values: float) -> None:
        """Keep one update; JSON knows no NaN."""
        self.rows.append({name: float(value) if math.isfinite(value) else None for name, value in values.items()})


def carry_out(plan: Plan, out: Path, control: bool = True) -> dict[str, Any]:
    """Return the run's numbers, made now or found below `out`; with the control of a policy that sees."""
    run = trained(plan, out)
    if control and plan.sees:
        rl = out / plan.key / "rl"
        run["elsewhere"] = kept_rate(plan, rl, partial(Elsewhere, plan.task))
    return run


def trained(plan: Plan, out: Path) -> dict[str, Any]:
    """One run's numbers without a control."""
    folder = out / plan.key
    done = folder / "result.json"
    if done.is_file():
        return dict(json.loads(done.read_text())) | {"plan": asdict(plan)}
    folder.mkdir(parents=True, exist_ok=True)
    print(f"\n{plan.task} seed {plan.seed} {plan.label}".rstrip(), file=sys.stderr)
    base = start(plan, out)
    before = kept_rate(plan, base)
    curve, began = Curve(), time.monotonic()
    config = parse(PpoConfig, plan.ppo)
    finetune(base, folder / "rl", plan.fast_env, simulation.max_steps(plan.task), config, plan.seed, curve)
    wall_s = time.monotonic() - began
    result = {
        "plan": asdict(plan),
        "ppo": asdict(config),
        "before": before,
        "after": rate(plan, folder / "rl"),
        "env_steps": curve.rows[-1]["env_steps"],
        "rl_s": wall_s,
        "base": checkpoint_version(base),
        "version": checkpoint_version(folder / "rl"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "curve": curve.rows,
    }
    write_json(done, result)
    return result


def start(plan: Plan, out: Path) -> Path:
    """The supervised checkpoint: one per task, seed and setting, shared by the runs that begin there."""
    config = parse(SftConfig, plan.sft)
    depends = [plan.task, plan.seed, plan.sft, plan.pretraining]
    name = sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:10]
    folder = out / f"base-{plan.folder}-{plan.seed}-{name}"
    if not (folder / "card.json").is_file():
        card = new_card(config.preset, plan.task, simulation.contract(plan.task), simulation.instructions(plan.task))
        expert, steps = simulation.expert(plan.task), simulation.max_steps(plan.task)
        base = start(replace(plan, seed=0, pretraining={}, **plan.pretraining), out) if plan.pretraining else None
        sft(folder, card, plan.fast_env, expert, steps, config, plan.seed, Printed(), base)
    return folder


def kept_rate(plan: Plan, checkpoint: Path, control: MakeEnv | None = None) -> dict[str, Any]:
    """Its rate, measured once for all that ask: the same weights and states give the same episodes."""
    kept = checkpoint / f"{'rate' if control is None else 'elsewhere'}-{plan.evaluation}.json"
    if not kept.is_file():
        write_json(kept, rate(plan, checkpoint, control))
    return dict(json.loads(kept.read_text()))


def rate(plan: Plan, checkpoint: Path, control: MakeEnv | None = None) -> dict[str, Any]:
    """Success on the fixed list of initial states, with its Wilson interval, and that of each task of a suite."""
    make = control or partial(simulation.reference_env, plan.task, plan.sees)
    seeds = evaluation_seeds(0)[: plan.evaluation]
    results = evaluate(checkpoint, make, simulation.max_steps(plan.task), seeds, Printed())
    successes = sum(result.success for result in results.values())
    steps = sum(result.steps for result in results.values()) / len(results)
    parts: dict[str, list[bool]] = {}
    for seed in seeds:
        parts.setdefault(simulation.part(plan.task, seed), []).append(results[seed].success)
    each = {name: counted(sum(found), len(found)) for name, found in parts.items()}
    return counted(successes, len(results)) | {"mean_steps": steps, "parts": each}


def counted(successes: int, episodes: int) -> dict[str, float]:
    """A rate as its counts and its Wilson interval."""
    low, high = wilson_interval(successes, episodes)
    return {"successes": successes, "episodes": episodes, "low": low, "high": high}
