"""A world that is solved by one right action, and a policy small enough to learn it in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Camera, Contract, Env, Field, Observation, StepResult
from pirl_server.model import families
from pirl_server.model.byte_tokens import VOCABULARY, encode_all
from pirl_server.model.critic import StateCritic
from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.smolvla.config import SmolVlaConfig
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.features import STATE_DIM
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processor import Array
from pirl_server.policy.tabletop_processor import TabletopProcessor

CONTRACT = Contract(
    robot="toy",
    cameras=(),
    state=tuple(Field(f"s{index}", "1") for index in range(21)),
    action=(Field("dx", "m", -0.1, 0.1), Field("grip", "1", -1.0, 1.0)),
    rate_hz=20.0,
)
SEEING = replace(CONTRACT, cameras=(Camera("base", 16, 16), Camera("wrist", 16, 16)))
"""the same robot with pictures of nothing in particular"""
SCALE = np.array([0.1, 1.0], np.float32)
BEST = np.array([0.5, -0.5], np.float32)
"""the right action in model space"""
INSTRUCTIONS = ("do it", "do the one right thing")


@dataclass
class ToyEnv:
    """Reward -(a - a*)^2 per step; success where it is above -`tolerance`, else `length` steps. Its state is noise."""

    length: int = 1
    tolerance: float = 0.0
    slow_s: float = 0.0
    bad_reward_at: int = -1
    sees: bool = False
    extra_state: int = 0
    """more numbers, about things that the robot itself does not feel"""
    steps: int = -1
    resets: int = 0
    total_steps: int = 0

    @property
    def contract(self) -> Contract:
        return SEEING if self.sees else CONTRACT

    def reset(self, seed: int) -> Observation:
        self._random, self.steps = np.random.default_rng(seed), 0
        self.instruction = INSTRUCTIONS[seed % 2]
        self.resets += 1
        self._state = self._random.normal(size=21 + self.extra_state).astype(np.float32) * 0.1
        return self.observe()

    def step(self, action: np.ndarray) -> StepResult:
        if self.steps < 0:
            raise RuntimeError("step without a running episode: call reset first")
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"an action is two finite numbers, got {action}")
        time.sleep(self.slow_s)
        self.steps, self.total_steps = self.steps + 1, self.total_steps + 1
        self._state = self._random.normal(size=21 + self.extra_state).astype(np.float32) * 0.1
        error = float(((action / SCALE - BEST) ** 2).sum())
        success = error < self.tolerance
        ended = success or self.steps >= self.length
        self.steps = -1 if ended else self.steps
        reward = float("nan") if self.total_steps == self.bad_reward_at else -error
        return StepResult(reward, success, ended and not success, success)

    def observe(self) -> Observation:
        random = np.random.default_rng(abs(int(self._state[0] * 1e6)))
        draw = lambda: random.integers(256, size=(16, 16, 3), dtype=np.uint8)  # noqa: E731
        images = {camera.name: draw() for camera in self.contract.cameras}
        return Observation(images, self._state, self.instruction, robot_id="toy")

    def close(self) -> None:
        self.steps = -1


def make_toy(**settings: Any) -> Callable[[], Env]:
    """An environment maker that a spawned process can import."""
    return partial(ToyEnv, **settings)


def toy_card(horizon: int = 2, sees: bool = False, family: str = "pi0", **changes: Any) -> ModelCard:
    """Card of a policy of some 20 thousand parameters."""
    vision = VisionConfig(16, 8, 16, depth=1, heads=2, mlp_dim=32) if sees else None
    sizes: dict[str, Any] = {
        "vlm": TowerConfig(16, 32), "expert": TowerConfig(32, 64), "heads": 2, "kv_heads": 1, "head_dim": 16,
        "vocabulary": VOCABULARY, "max_tokens": 32, "state_dim": STATE_DIM, "action_dim": 2, "horizon": horizon,
    }  # fmt: skip
    model: FlowModelConfig = Pi0Config(vision, depth=1, **sizes)
    if family == "smolvla":  # one layer of each kind of attention
        model = SmolVlaConfig(vision, pixel_shuffle=2 if sees else 1, depth=2, **sizes)
    card = ModelCard(
        name="toy", contract=SEEING if sees else CONTRACT, model=model, features="proprioception",
        action_scale=tuple(SCALE.tolist()), execute_horizon=horizon, denoise_steps=4, noise_level=0.5,
        instructions=INSTRUCTIONS, task="toy", family=family,
    )  # fmt: skip
    return replace(card, **changes)


def toy_policy(seed: int = 0, horizon: int = 2, **changes: Any) -> FlowPolicy:
    """A random policy in memory."""
    card = toy_card(horizon, **changes)
    torch.manual_seed(seed)
    return FlowPolicy(card, families.build(card.model), "toy")


class Spoken(TabletopProcessor):
    """The state is in the prompt, as in pi0.5's."""

    state_in_prompt = True

    def prompts(self, instructions: Sequence[str], state_NS: Array) -> tuple[Tensor, Tensor]:
        texts = [f"{text} {100 * state[0]:.0f}" for text, state in zip(instructions, state_NS)]
        return encode_all(texts, 40)


def spoken_policy(seed: int = 0, sees: bool = False) -> FlowPolicy:
    """A random pi0.5 policy that reads its state in the prompt. Its gates are open: fresh ones let nothing through."""
    card = toy_card(sees=sees)
    card = replace(card, model=replace(card.model, family="pi05"))  # type: ignore[type-var]
    torch.manual_seed(seed)
    model = families.build(card.model)
    for name, parameter in model.named_parameters():
        if ".dense." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return FlowPolicy(card, model, "spoken", Spoken(card))


def save_toy(folder: Path, seed: int = 0, *, critic: bool = False, horizon: int = 2, **changes: Any) -> Path:
    """A random policy on disk."""
    policy = toy_policy(seed, horizon, **changes)
    value = StateCritic(STATE_DIM).state_dict() if critic else None
    save_checkpoint(folder, policy.card, policy.model.state_dict(), value)
    return folder


def toy_observation(seed: int = 0, sees: bool = False) -> Observation:
    """The first observation of an episode."""
    return ToyEnv(sees=sees).reset(seed)


@dataclass
class Heard:
    """`Progress` that keeps what it is told, and cancels after `cancel_after` reports."""

    cancel_after: int = 10**9

    def __post_init__(self) -> None:
        self.numbers: list[dict[str, float]] = []
        self.reports: list[tuple[int, int]] = []
        self.messages: list[str] = []

    @property
    def cancelled(self) -> bool:
        return len(self.reports) >= self.cancel_after

    def progress(self, done: int, total: int, message: str) -> None:
        self.reports.append((done, total))
        self.messages.append(message)

    def metrics(self, **values: float) -> None:
        self.numbers.append(values)
