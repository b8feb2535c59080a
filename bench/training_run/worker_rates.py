"""Env steps per second of rollouts with one worker and with two, the same environments in all."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import torch

from pirl_server import simulation
from pirl_server.config.training import PpoConfig
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.training.rollout.worker_pool import WorkerPool
from pirl_server.training.supervised.sft import new_card


def worker_rates(task: str, *, quick: bool) -> dict[str, float]:
    """Env steps per second of the warm pool, and how much of it a second worker adds."""
    envs, decisions, repeats = (4, 4, 2) if quick else (16, 16, 5)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        card = new_card("tiny-state", task, simulation.contract(task), simulation.instructions(task))
        save_checkpoint(Path(folder), card, Pi0(card.model).state_dict())
        for workers in (1, 2):
            config = PpoConfig(workers=workers, envs=envs)
            figures[f"{task}: env steps/s, {workers} worker(s)"] = round(
                rate(Path(folder), task, config, decisions, repeats), 1
            )
    one, two = figures.values()
    return figures | {f"{task}: two workers over one": round(two / one, 2)}


def rate(base: Path, task: str, config: PpoConfig, decisions: int, repeats: int) -> float:
    """Median over collections; the first is left out, it waits for the processes to start."""
    make, steps = partial(simulation.fast_env, task), simulation.max_steps(task)
    found = []
    with closing(WorkerPool(make, base, steps, config=config, seed=1_000_000)) as pool:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            batch = pool.collect({}, decisions, config.noise_level, version=0)
            found.append(int(batch.env_steps[0]) / (time.perf_counter() - start))
    return median(found[1:])
