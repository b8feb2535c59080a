"""Hyper-parameters of each kind of job, as frozen dataclasses. A job's `config` overrides fields by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

ConfigT = TypeVar("ConfigT", bound="SftConfig | PpoConfig | EpisodesConfig")

MAY_BE_NONE = ("warmup_updates",)
"""counts that 0 is a choice of, though not the default"""

Part = Literal["train", "lora", "frozen"]
"""what happens to one half of the model: all of it learns, low-rank adapters do, nothing does"""


@dataclass(frozen=True)
class FlowMatchingConfig:
    """How flow matching trains, whatever its windows come from. A number whose default is 0 is off at 0."""

    steps: int = 400
    batch_size: int = 256
    draws: int = 1
    """noises and times of each window of a batch; its picture is encoded once for all of them"""
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
    grounding: str = ""
    """what pictures are asked besides the action: a key of `policy.features.FEATURES`, e.g. object_and_goal; for
    demonstrations in simulation"""
    execution_noise: float = 0.15
    """std of the noise on the executed, not on the recorded action, in units of the action range"""


@dataclass(frozen=True)
class PpoConfig:
    """Online RL on fresh rollouts: hybrid Flow-SDE with PPO by default; docs/results/demo.md says what that reaches.

    A number whose default is 0 is off at 0. Raises ValueError for choices that do not go together.
    """

    env_steps: int = 120_000
    """budget of control steps, warm-up included"""
    envs: int = 32
    workers: int = 2
    decisions: int = 16
    """per environment and update; groups of episodes take whole episodes instead"""
    warmup_updates: int = 2
    """updates that train the critic only"""
    epochs: int = 4
    minibatch: int = 256
    actor_learning_rate: float = 6e-5
    critic_learning_rate: float = 1e-3
    noise_learning_rate: float = 0.0
    """of the noise net; 0: the actor's"""
    vlm_learning_rate: float = 0.0
    """of vision and language where they learn; 0: the actor's"""
    clip: float = 0.2
    clip_high: float = 0.0
    """upper side of the clip; 0: as the lower one"""
    dual_clip: float = 0.0
    """bounds what a bad decision whose ratio exploded can weigh (arXiv 1912.09729); 3 is common"""
    gamma: float = 0.97
    """discount per decision, not per control step"""
    gae_lambda: float = 0.95
    max_kl: float = 0.075
    """an update ends at the first minibatch whose approximate KL is above"""
    max_grad_norm: float = 1.0
    value_clip: float = 0.0
    """how far a value may move in one update; pi_RL: 0.2"""
    huber_delta: float = 0.0
    """where the value's error turns from squared to absolute; pi_RL: 10"""
    entropy_weight: float = 0.0
    """of Flow-Noise's entropy bonus; pi_RL: 0.005"""
    imitation_weight: float = 0.0
    """of flow matching on demonstrations beside the policy's loss"""
    imitation_demonstrations: int = 3
    """episodes of the scripted expert for it"""

    noise: Literal["flow-sde", "flow-noise", "cps"] = "flow-sde"
    """how a denoise step is made stochastic: by the marginals' SDE, by a net that learns how much, by coefficient-
    preserving sampling (arXiv 2509.05952)"""
    steps: Literal["hybrid", "all"] = "hybrid"
    """which denoise steps are: one per decision, or each (the two-layer MDP)"""
    index: Literal["sample", "stratified", "shared"] = "sample"
    """how the hybrid's step is drawn: per decision, evenly over the environments, one for all of them"""
    schedule: Literal["paper", "regular"] = "paper"
    """sigma of Flow-SDE: a sqrt(t / (1 - t)), or a sqrt(t)"""
    reduction: Literal["sum", "mean_steps", "per_step"] = "sum"
    """of the densities of all steps: one ratio from their sum or their mean, or a ratio per step"""
    noise_level: float = 0.5
    """a of Flow-SDE and of coefficient-preserving sampling"""
    anneal_to: float = 0.0
    """the noise level goes there in a line"""
    anneal_over: int = 50
    """in so many updates"""
    std_low: float = 0.08
    std_high: float = 0.16
    """bounds of the standard deviation that Flow-Noise may learn"""
    denoise_steps: int = 0
    """K; 0: the checkpoint's"""
    execute_horizon: int = 0
    """actions played of a chunk; 0: the checkpoint's"""

    advantage: Literal["gae", "grpo"] = "gae"
    """against a critic, or against other episodes from the same initial state (GRPO, arXiv 2402.03300)"""
    advantage_scale: Literal["minibatch", "task"] = "minibatch"
    """what advantages are normalised over: the minibatch, or the batch's decisions of the same instruction"""
    group: int = 8
    """episodes of one initial state"""
    rounds: int = 1
    """episodes of each environment in an update of GRPO"""
    group_return: Literal["success", "reward"] = "success"
    """what is compared within a group"""
    group_low: float = 0.1
    group_high: float = 0.9
    """groups whose success rate is outside teach nothing"""
    critic: Literal["state", "expert", "vlm"] = "state"
    """what the value is a function of: `critic_features`, the action expert's outputs (V_expert), the prefix (V_vlm);
    each is told the elapsed share of the episode, so that a time limit is a true end"""
    critic_features: str = "policy"
    """what a state critic reads: what the policy does, or a key of `policy.features.FEATURES`. In simulation a critic
    may be told what a policy with a camera has to see."""

    vlm: Part = "frozen"
    """vision, projector and language"""
    expert: Literal["train", "lora"] = "train"
    """action expert and its projections"""
    lora_rank: int = 16
    lora_alpha: float = 16.0
    prefix_batch: int = 32
    """decisions whose pictures are encoded at a time"""
    torch_threads: int = 1
    """of the learner; more only where nothing else runs: threads that wait for a busy core cost more than they bring"""

    def __post_init__(self) -> None:
        if self.noise == "flow-noise" and self.steps == "hybrid":
            raise ValueError("noise 'flow-noise' applies to every denoise step: set steps to 'all'")
        if self.steps == "hybrid" and self.reduction != "sum":
            raise ValueError(f"reduction '{self.reduction}' needs a density of each step: set steps to 'all'")
        if self.noise != "flow-noise" and self.entropy_weight:
            raise ValueError(f"entropy_weight: noise '{self.noise}' is not learned, it has no entropy; set 0")
        if self.noise == "cps" and not self.noise_level <= 1.0:
            raise ValueError(f"noise_level {self.noise_level} must be at most 1 for noise 'cps'")
        if self.noise == "cps" and self.denoise_steps == 1:
            raise ValueError("noise 'cps' is zero in the last denoise step: set denoise_steps to 2 or more")
        if not self.std_low < self.std_high:
            raise ValueError(f"std_low {self.std_low} must be below std_high {self.std_high}")
        if self.dual_clip and not self.dual_clip > 1.0:
            raise ValueError(f"dual_clip {self.dual_clip} must be above 1, or 0 for none")
        if self.advantage == "grpo":
            self._check_groups()

    def _check_groups(self) -> None:
        if self.group < 2:
            raise ValueError(f"group {self.group}: a group compares at least 2 episodes of one initial state")
        if self.envs % (self.workers * self.group):
            raise ValueError(
                f"{self.envs} environments of {self.workers} workers can't be shared by groups of {self.group}: "
                f"set envs to a multiple of {self.workers * self.group}"
            )


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
            raise ValueError(f"config key {short(key)} is not known; there are: {', '.join(sorted(known))}")
        _check(key, value, known[key], off=getattr(config, key) == 0 or key in MAY_BE_NONE)
    return replace(config, **values)


def _check(key: str, value: Any, kind: Any, off: bool) -> None:
    """Raise ValueError for a value that a field of this type can't have; `off`: 0 is one that it can."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"config key '{key}' must be one of {', '.join(get_args(kind))}, got {short(value)}")
        return
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ValueError(f"config key '{key}' must be {kind.__name__}, got {short(value)}")
    if not isinstance(value, str) and not (0 < value < math.inf or (off and value == 0)):
        raise ValueError(f"config key '{key}' must be positive, got {short(value)}")
