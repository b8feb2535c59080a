"""Updates per second of the learner, as it is and the plain way, on the same decisions."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from pictures_env import PicturesEnv
from torch import Tensor

from pirl_server import simulation
from pirl_server.config.training import PpoConfig
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.prefix import Prefix
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.training.prefix_cache import encode_rows
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector
from pirl_server.training.sim_rl import update
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update_batch import Decisions, prepare
from pirl_server.training.supervised.sft import new_card

TASK = "PushCube-v1"
ENVS, MINIBATCH, EPOCHS, REPEATS = 8, 32, 4, 5
CASES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "every step": {"steps": "all"},
    "flow-noise": {"noise": "flow-noise", "steps": "all", "reduction": "mean_steps"},
}


def update_rates(*, quick: bool) -> dict[str, float]:
    """Updates per second by case, ours and plain, and what they are of each other."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = fresh_policy(Path(folder))
        for name, choices in CASES.items():
            config = PpoConfig(**choices, envs=ENVS, minibatch=MINIBATCH, epochs=EPOCHS, max_kl=1e9)
            ours, plain = both(base, config, decisions=8 if quick else 16, repeats=2 if quick else REPEATS)
            figures[f"{name}: updates/s"] = round(1 / ours, 3)
            figures[f"{name}: updates/s, plain"] = round(1 / plain, 3)
            figures[f"{name}: ours over plain"] = round(plain / ours, 2)
    hybrid, plain = figures["hybrid: updates/s"], figures["every step: updates/s, plain"]
    figures["hybrid over plain in every step"] = round(hybrid / plain, 2)
    return figures


def fresh_policy(folder: Path) -> Path:
    """The small preset with a camera, random weights."""
    torch.manual_seed(0)
    card = new_card("tiny", TASK, simulation.contract(TASK), simulation.instructions(TASK))
    save_checkpoint(folder, card, Pi0(card.model).state_dict())
    return folder


def both(base: Path, config: PpoConfig, decisions: int, repeats: int) -> tuple[float, float]:
    """Median seconds of an update, ours and plain, taking turns; the losses of the first of each must agree."""
    kept, pixels = (rollout(base, config, decisions, keep) for keep in (1 << 30, 0))
    ours, plain = list[float](), list[float]()
    losses = []
    for _ in range(repeats):
        for batch, form, times in ((kept, prepare, ours), (pixels, plain_prepare, plain)):
            learner, generator = make_learner(base, config, 0), torch.Generator().manual_seed(0)
            start = time.perf_counter()
            with patch.object(update, "prepare", form):
                numbers = update.update(learner, batch, config, generator, train_actor=True)
            times.append(time.perf_counter() - start)
            losses.append(numbers["policy_loss"])
    assert max(losses) - min(losses) < 1e-3, f"not the same update: {losses}"
    return median(ours), median(plain)


def rollout(base: Path, config: PpoConfig, decisions: int, keep_bytes: int) -> DecisionBatch:
    """The same decisions with their prefixes, or with their images."""
    learner = make_learner(base, config, 0)
    contract, says = learner.policy.contract, learner.policy.instructions[0]
    make = partial(PicturesEnv, contract, says, length=40)
    explorer = learner.explorer
    return Collector(make, learner.policy, ENVS, count(1), 40, keep_bytes=keep_bytes, explorer=explorer).collect(
        decisions
    )


def plain_prepare(learner: Learner, batch: DecisionBatch, config: PpoConfig) -> Decisions:
    """As `prepare`, but nothing is kept: each minibatch encodes its images and prompts again."""
    policy, images = learner.policy, batch.images
    assert images is not None
    pictures = {name: each.reshape(-1, *each.shape[2:]) for name, each in images.items()}
    tokens, mask = policy.prompt_tokens(policy.instructions)
    sentence = torch.from_numpy(batch.sentence_TN.ravel())

    @torch.no_grad()
    def encode(number_B: Tensor) -> Prefix:
        seen = {name: each[number_B.numpy()] for name, each in pictures.items()}
        return encode_rows(policy, tokens, mask, sentence[number_B], seen)

    first = torch.arange(1)
    with patch("pirl_server.training.sim_rl.update_batch.cache_rows", lambda *_: encode(first)):
        decisions = prepare(learner, batch, config)
    return replace(decisions, prefix_of=encode)
