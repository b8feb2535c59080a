"""Does a policy see where things are? Ridge regression from its prefix to the object's place on the table.

    python bench/seeing.py [CHECKPOINT] [--task PushCube-v1] [--quick] [--json]

Vision and language make keys and values of an image, which is all that the action expert gets of it. A linear map
from the values of each layer to the object's x and y is fitted on some images and tried on 100 others: its mean error
bounds from above what an expert can know. Beside it, the error of who knows the mean only. Without a checkpoint the
weights are random: most of what a view has to tell survives those.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from pirl_contract import Observation
from pirl_server import simulation
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.supervised.sft import new_card
from pirl_sim.maniskill.panda import OBJECT, TCP_STEP_LIMIT

Array = NDArray[np.float64]
FIRST_SEED = 500_000
"""between the simulated robot's and the first of training: no policy has learnt from these"""
TESTED, BATCH = 100, 50
MOST_RANDOM_STEPS = 8
PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)


def load(checkpoint: Path | None, task: str) -> FlowPolicy:
    if checkpoint is not None:
        return FlowPolicy.load(checkpoint)
    torch.manual_seed(0)
    card = new_card("tiny", task, simulation.contract(task), simulation.instructions(task))
    return FlowPolicy(card, Pi0(card.model).eval(), "random")


def scenes(task: str, count: int) -> list[Observation]:
    """Initial states after a few random actions, so that the arm is not always in one place."""
    env, rng = simulation.fast_env(task, sees=True), np.random.default_rng(0)
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        env.reset(seed)
        for _ in range(rng.integers(MOST_RANDOM_STEPS)):
            env.step((0.5 * TCP_STEP_LIMIT * rng.standard_normal(4)).astype(np.float32))
        found.append(env.observe())
    env.close()
    return found


@torch.inference_mode()
def values(policy: FlowPolicy, observations: list[Observation]) -> Array:
    """Values of the prefix [L, N, features]."""
    parts = [
        policy.prefixes(observations[at : at + BATCH]).values.flatten(2).numpy()
        for at in range(0, len(observations), BATCH)
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def error(inputs: Array, places: Array, fitted: int) -> float:
    """Mean distance over the last rows in the unit of `places`, the penalty chosen on the last fifth of the others."""
    inputs = (inputs - inputs[:fitted].mean(axis=0)) / (inputs[:fitted].std(axis=0) + 1e-6)
    part = fitted - fitted // 5
    best = min(PENALTIES, key=lambda penalty: _distance(inputs[:fitted], places[:fitted], part, penalty))
    return _distance(inputs, places, fitted, best)


def _distance(inputs: Array, places: Array, fitted: int, penalty: float) -> float:
    known, mean = inputs[:fitted], places[:fitted].mean(axis=0)
    weights = np.linalg.solve(known @ known.T + penalty * np.eye(fitted), places[:fitted] - mean)
    guesses = inputs[fitted:] @ known.T @ weights + mean
    return float(np.linalg.norm(guesses - places[fitted:], axis=1).mean())


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, help="folder of a policy with a camera; default: random weights"
    )
    parser.add_argument("--task", default="PushCube-v1", help="one of ManiSkill's")
    parser.add_argument("--quick", action="store_true", help="fewer images, a larger error")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    fitted = 100 if options.quick else 600
    observations = scenes(options.task, fitted + TESTED)
    places = np.stack([observation.state[OBJECT][:2] for observation in observations]).astype(np.float64) * 100.0
    away = np.linalg.norm(places[fitted:] - places[:fitted].mean(axis=0), axis=1)
    figures = {"error knowing the mean, cm": float(away.mean())}
    for layer, inputs in enumerate(values(load(options.checkpoint, options.task), observations)):
        figures[f"error from the values of layer {layer}, cm"] = error(inputs, places, fitted)
    print(
        json.dumps(figures) if options.json else "\n".join(f"{name:40}{value:>8.2f}" for name, value in figures.items())
    )


if __name__ == "__main__":
    main()
