"""Hyper-parameters of each kind of job, as frozen dataclasses. A job's `config` overrides fields by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

ConfigT = TypeVar("ConfigT", bound="SftConfig | PpoConfig | EpisodesConfig")

Part = Literal["train", "lora", "frozen"]
"""what happens to one half of the model: all of it learns, low-rank adapters do, nothing does"""


@dataclass(frozen=True)
class FlowMatchingConfig:
    """How flow matching trains, whatever its windows come from. A number whose default is 0 is off at 0."""

    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 1e-3
    """the highest; a cosine brings it down to a twentieth"""
    warmup_steps: int = 0
    """steps of linear rise before that"""
    weight_decay: float = 0.0
    """AdamW's"""
    vlm: Part = "train"
    """vision, projector and language; "lora" adapts the language tower and freezes vision"""
    expert: Part = "train"
    """action expert and its projections; "lora" adapts the tower and trains the small projections"""
    lora_rank: int = 16
    lora_alpha: float = 16.0
    ema_decay: float = 0.0
    """the saved weights are an average over the steps; openpi fine-tunes with 0.99"""
    prefix_delay: int = 0
    """longest delay that is simulated, in actions: the policy learns to go on from so many given first actions, so
    that a robot need not stop between two chunks and no guidance is paid for (arXiv 2512.05964)"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the network's products; weights, optimiser and loss are float32 in either"""
    augment: float = 0.0
    """strength of random crops, turns and colours of the images; 1 is openpi's"""
    device: str = "cpu"
    """torch's name of where to train, e.g. cuda"""


@dataclass(frozen=True)
class SftConfig(FlowMatchingConfig):
    """Supervised flow matching on scripted demonstrations, or on the robots' successful episodes."""

    source: Literal["expert", "episodes"] = "expert"
    """a scripted expert in the simulator, or what was executed in logged episodes that are labelled a success"""
    preset: str = "tiny-state"
    """model size without a base: 'tiny-state' (no camera) or 'tiny' (one 64 px camera)"""
    demonstrations: int = 3
    """episodes of the scripted expert; few of them make a mediocre policy"""
    execution_noise: float = 0.15
    """std of the noise on the executed, not on the recorded action, in units of the action range"""


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
    critic_features: str = "policy"
    """what the critic reads: what the policy does, or a key of `policy.features.FEATURES`. In simulation a critic may
    be told what a policy with a camera has to see."""
    prefix_batch: int = 32
    """decisions whose pictures are encoded at a time"""
    torch_threads: int = 1
    """of the learner; more only where nothing else runs: threads that wait for a busy core cost more than they bring"""


@dataclass(frozen=True)
class EpisodesConfig(FlowMatchingConfig):
    """Advantage-weighted flow matching on logged episodes."""

    steps: int = 300
    learning_rate: float = 1e-4
    vlm: Part = "frozen"
    value_steps: int = 300
    gamma: float = 0.97
    temperature: float = 0.3
    """beta of the weight exp(advantage / beta); smaller trusts the critic more"""
    max_weight: float = 10.0
    min_episodes: int = 10
    """fewer are refused: a critic needs something to compare"""


def override(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return `config` with some fields replaced. Raises ValueError that names an unknown key or a wrong value."""
    known = get_type_hints(type(config))
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"config key '{key}' is not known; there are: {', '.join(sorted(known))}")
        _check(key, value, known[key], off=getattr(config, key) == 0)
    return replace(config, **values)


def _check(key: str, value: Any, kind: Any, off: bool) -> None:
    """Raise ValueError for a value that a field of this type can't have; `off`: 0 is one that it can."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"config key '{key}' must be one of {', '.join(get_args(kind))}, got {value!r}")
        return
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ValueError(f"config key '{key}' must be {kind.__name__}, got {value!r}")
    if not isinstance(value, str) and not (0 < value < math.inf or (off and value == 0)):
        raise ValueError(f"config key '{key}' must be positive, got {value!r}")
