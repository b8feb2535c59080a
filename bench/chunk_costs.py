"""What a chunk costs that goes on from another one, and what several robots' chunks cost in one pass.

    python bench/chunk_costs.py [--quick] [--json]

Ratios over a chunk without RTC, for one robot; and over eight robots one after the other, for eight in a batch.
Medians over rounds in which every kind takes its turn, with new images each time; one CPU thread, 10 denoise steps,
chunks of 10 actions of which 3 are played meanwhile, random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from pirl_contract import Camera, Observation, PreviousChunk
from pirl_server import simulation
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.presets import PRESETS
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest
from pirl_server.training.supervised.sft import new_card

HORIZON, STEPS, DELAY, ROBOTS = 10, 10, 3, 8
TASK = "PushCube-v1"


def fresh_policy(size: str) -> FlowPolicy:
    """Random weights; a camera where the size has eyes."""
    torch.manual_seed(0)
    model = PRESETS[size](32, 4, HORIZON)
    seen = () if model.vision is None else (Camera("base", model.vision.image_px, model.vision.image_px),)
    contract = replace(simulation.contract(TASK), cameras=seen)
    card = new_card("tiny-state" if model.vision is None else "tiny", TASK, contract, simulation.instructions(TASK))
    card = replace(card, model=model, denoise_steps=STEPS, execute_horizon=HORIZON, prefix_delay=DELAY)
    return FlowPolicy(card, Pi0(card.model), size)


def look(policy: FlowPolicy, seed: int) -> Observation:
    """What a robot sees; another seed is another image."""
    random = np.random.default_rng(seed)
    images = {
        camera.name: random.integers(0, 255, (camera.height, camera.width, 3), np.uint8)
        for camera in policy.contract.cameras
    }
    state = random.normal(size=len(policy.contract.state)).astype(np.float32) * 0.1
    return Observation(images, state, policy.instructions[0], "a")


def kinds(policy: FlowPolicy) -> dict[str, Callable[[int], None]]:
    """What is compared, by name; called with the round."""
    known = np.random.default_rng(0).normal(size=(HORIZON - DELAY, 4)).astype(np.float32) * 0.1

    def ask(turn: int, robot: int, method: str = "") -> PolicyRequest:
        going_on = PreviousChunk(known, DELAY, method, "c") if method else None  # type: ignore[arg-type]
        return PolicyRequest(look(policy, robot + ROBOTS * turn), False, turn, going_on)

    def one(method: str) -> Callable[[int], None]:
        return lambda turn: require(policy, [ask(turn, 0, method)])

    def apart(turn: int) -> None:
        for robot in range(ROBOTS):
            require(policy, [ask(turn, robot)])

    return {
        "no RTC": one(""),
        "guided": one("guided"),
        "prefix": one("prefix"),
        "apart": apart,
        "together": lambda turn: require(policy, [ask(turn, robot) for robot in range(ROBOTS)]),
    }


def require(policy: FlowPolicy, asks: list[PolicyRequest]) -> None:
    """Draw, and fail loudly."""
    for answer in policy.sample_batch(asks):
        if isinstance(answer, ValueError):
            raise answer


def compare(size: str, rounds: int) -> dict[str, float]:
    """Ratios for one size."""
    policy, spans = fresh_policy(size), dict[str, list[float]]()
    for turn in range(rounds + 1):
        for kind, draw in kinds(policy).items():
            began = time.perf_counter()
            draw(turn)
            spans.setdefault(kind, []).append(time.perf_counter() - began)
    took = {kind: median(each[1:]) for kind, each in spans.items()}
    return {
        f"{size}: chunk ms": round(1e3 * took["no RTC"], 2),
        f"{size}: guided / no RTC": round(took["guided"] / took["no RTC"], 2),
        f"{size}: prefix / no RTC": round(took["prefix"] / took["no RTC"], 2),
        f"{size}: {ROBOTS} apart / together": round(took["apart"] / took["together"], 2),
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for size, rounds in (("tiny_state", 60), ("tiny", 40), ("small", 20)):
        figures |= compare(size, max(3, rounds // 10) if options.quick else rounds)
    print(json.dumps(figures) if options.json else "\n".join(f"{name:44}{value:>9}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
