"""Hyper-parameters of each kind of job, as frozen dataclasses. A job's `config` overrides fields by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT", bound="SftConfig | PpoConfig | EpisodesConfig")


@dataclass(frozen=True)
class SftConfig:
    """Supervised flow matching on scripted demonstrations."""

    preset: str = "tiny-state"
    """model size: 'tiny-state' (no camera) or 'tiny' (one 64 px camera)"""
    demonstrations: int = 3
    """episodes of the scripted expert; few of them make a mediocre policy"""
    execution_noise: float = 0.15
    """std of the noise on the executed, not on the recorded action, in units of the action range"""
    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class PpoConfig:
    """Hybrid Flow-SDE with PPO on fresh rollouts; docs/results/demo.md says what the defaults reach."""

    env_steps: int = 120_000
    """budget of control steps, warm-up included"""
    envs: int = 32
    workers: int = 2
    decisions: int = 16
    """per environment and update"""
    warmup_updates: int = 2
    """updates that train the critic only"""
    epochs: int = 4
    minibatch: int = 256
    actor_learning_rate: float = 6e-5
    critic_learning_rate: float = 1e-3
    clip: float = 0.2
    gamma: float = 0.97
    """discount per decision, not per control step"""
    gae_lambda: float = 0.95
    noise_level: float = 0.5
    """a of sigma = a sqrt(t / (1 - t))"""
    max_kl: float = 0.075
    """an update ends at the first minibatch whose approximate KL is above"""
    max_grad_norm: float = 1.0
    torch_threads: int = 1
    """of the learner; more only where nothing else runs: threads that wait for a busy core cost more than they bring"""


@dataclass(frozen=True)
class EpisodesConfig:
    """Advantage-weighted flow matching on logged episodes."""

    steps: int = 300
    batch_size: int = 256
    learning_rate: float = 1e-4
    value_steps: int = 300
    gamma: float = 0.97
    temperature: float = 0.3
    """beta of the weight exp(advantage / beta); smaller trusts the critic more"""
    max_weight: float = 10.0
    min_episodes: int = 10
    """fewer are refused: a critic needs something to compare"""


def override(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return `config` with some fields replaced. Raises ValueError that names an unknown key or a wrong type."""
    known = {field.name: type(getattr(config, field.name)) for field in fields(config)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"config key '{key}' is not known; there are: {', '.join(sorted(known))}")
        accepted = (int, float) if known[key] is float else known[key]
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise ValueError(f"config key '{key}' must be {known[key].__name__}, got {value!r}")
        if not isinstance(value, str) and not 0 < value < math.inf:
            raise ValueError(f"config key '{key}' must be positive, got {value!r}")
    return replace(config, **values)
