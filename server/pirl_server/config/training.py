"""Hyper-parameters of each training method, as strict frozen dataclasses. None means off, or as the checkpoint says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from pirl_server.config.fields import CHECKED, OFF, about, flag, number, text

FEATURE_PATTERN = "^[a-z_]+$"
Part = Literal["train", "lora", "frozen"]
"""what happens to one half of the model: all of it learns, low-rank adapters do, nothing does"""

SavedDtype = Literal["float32", "base"]
SavedAs = Annotated[
    SavedDtype,
    about(
        "of the halves that learnt: 'float32' as they were trained; 'base' each tensor as the base has it, half the"
        " size for a bfloat16 one, where small changes are rounded away"
    ),
]

Steps = Annotated[int, number("optimiser steps", "steps", ge=1)]
LearningRate = Annotated[float, number("the highest; a cosine brings it down to a twentieth", "1/step", gt=0)]
Vlm = Annotated[
    Part, about("vision, projector and language; 'lora' adapts the language tower and freezes vision"),
]  # fmt: skip
LoraRank = Annotated[int, number("rank of the low-rank adapters", "dimensions", ge=1)]
LoraAlpha = Annotated[float, number("the adapters' scale is lora_alpha / lora_rank", "ratio", gt=0)]
Demonstrations = Annotated[
    int, number("episodes of the scripted expert; few of them make a mediocre policy", "episodes", ge=1)
]
Discount = Annotated[float, number("discount per decision, not per control step", "1/decision", gt=0, le=1)]


@dataclass(frozen=True, config=CHECKED)
class FlowMatchingConfig:
    """How flow matching trains, whatever its windows come from."""

    steps: Steps = 400
    batch_size: Annotated[int, number("windows of one optimiser step", "windows", ge=1)] = 256
    draws: Annotated[
        int, number("noises and times of each window of a batch; its image is encoded once for all", "samples", ge=1)
    ] = 1
    learning_rate: LearningRate = 1e-3
    warmup_steps: Annotated[int, number("linear rise of the learning rate before the cosine", "steps", ge=0)] = 0
    weight_decay: Annotated[float, number("AdamW's", "1/step", ge=0)] = 0.0
    vlm: Vlm = "train"
    expert: Annotated[
        Part, about("action expert and its projections; 'lora' adapts the tower and trains the small projections")
    ] = "train"
    lora_rank: LoraRank = 16
    lora_alpha: LoraAlpha = 16.0
    ema_decay: Annotated[
        float | None,
        number(
            "the saved weights are an average over the steps; openpi fine-tunes with 0.99; null: the last weights",
            "1/step", gt=0, lt=1,
        ), OFF,
    ] = None  # fmt: skip
    prefix_delay: Annotated[
        int,
        number(
            "longest inference delay that is simulated: the policy learns to continue from so many given first actions,"
            " so that a robot need not stop between two chunks and no guidance is paid for (arXiv 2512.05964)",
            "actions", ge=0,
        ),
    ] = 0  # fmt: skip
    precision: Annotated[
        Literal["float32", "bfloat16"],
        about("of the network's products; weights that learn, optimiser and loss are float32 in either, from any base"),
    ] = "float32"
    saved_dtype: SavedAs = "float32"
    augment: Annotated[
        float, number("strength of random crops, turns and colours of the images; 1 is openpi's", "ratio", ge=0)
    ] = 0.0
    device: Annotated[str, text("torch's name of where to train: cpu, cuda, cuda:1", "^[a-z]+(:[0-9]+)?$")] = "cpu"


@dataclass(frozen=True, config=CHECKED)
class MixtureConfig(FlowMatchingConfig):
    """How flow matching trains on logged episodes of several origins. Raises ValueError for shares above 1 together."""

    takeover_share: Annotated[
        float | None,
        number(
            "of each batch, windows that a human drove in an episode of the policy; null: as they come",
            "share", gt=0, le=1,
        ), OFF,
    ] = None  # fmt: skip
    demonstration_share: Annotated[
        float | None,
        number("of each batch, windows of episodes that a human drove alone; null: as they come", "share", gt=0, le=1),
        OFF,
    ] = None
    balance_tasks: Annotated[bool, flag("draw the windows of every instruction equally often")] = False

    def __post_init__(self) -> None:
        if (total := (self.takeover_share or 0.0) + (self.demonstration_share or 0.0)) > 1.0:
            raise ValueError(f"takeover_share and demonstration_share are {total:g} together, at most 1 is possible")


@dataclass(frozen=True, config=CHECKED)
class SftConfig(MixtureConfig):
    """Supervised flow matching on scripted demonstrations, or on the robots' successful episodes."""

    source: Annotated[
        Literal["expert", "episodes"],
        about("a scripted expert in the simulator, or what was executed in logged episodes labelled a success"),
    ] = "expert"
    preset: Annotated[
        Literal["tiny-state", "tiny", "smolvla-tiny-state", "smolvla-tiny"],
        about(
            "model without a base: pi0 without a camera (tiny-state) or with one of 64 px (tiny), or SmolVLA of these"
            " sizes"
        ),
    ] = "tiny-state"
    demonstrations: Demonstrations = 3
    grounding: Annotated[
        str | None,
        text(
            "auxiliary target of the image prefix: a key of `policy.features.FEATURES`, e.g. object_and_goal; for"
            " demonstrations in simulation; null: none",
            FEATURE_PATTERN,
        ),
        OFF,
    ] = None
    execution_noise: Annotated[
        float,
        number("standard deviation of the noise on the executed, not on the recorded action", "action range", gt=0),
    ] = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == "expert" and (self.takeover_share or self.demonstration_share or self.balance_tasks):
            raise ValueError("takeover_share, demonstration_share and balance_tasks need source 'episodes'")


LoggedMethod = Literal["auto", "advantage_weighted", "filtered_bc", "dagger", "recap", "progress", "ppo_logged", "dsrl"]
"""`training.method_choice` chooses, or a file of `training.episode_rl.methods`"""


@dataclass(frozen=True, config=CHECKED)
class EpisodesConfig(MixtureConfig):
    """Learning from logged episodes, by one of several methods; each reads its own fields."""

    method: Annotated[
        LoggedMethod,
        about(
            "auto: what the episodes are decides, and it is said why; advantage_weighted: flow matching weighted by"
            " exp(advantage / temperature); filtered_bc: flow matching on successes and what humans did; dagger: the"
            " same, half of it takeovers; recap: flow matching on all, the prompt says what was better than usual;"
            " progress: as recap, by the order of observations, without labels; ppo_logged: decoupled PPO on the chains"
            " of exploring episodes of the base or up to max_age versions before it; dsrl: an actor over the initial"
            " noise of the frozen policy"
        ),
    ] = "auto"
    steps: Steps = 300
    learning_rate: LearningRate = 1e-4
    vlm: Vlm = "frozen"
    value_steps: Annotated[int, number("optimiser steps of the critic", "steps", ge=1)] = 300
    gamma: Discount = 0.97
    temperature: Annotated[
        float, number("beta of the weight exp(advantage / beta); smaller trusts the critic more", "return", gt=0)
    ] = 0.3
    max_weight: Annotated[float, number("the highest weight of a decision", "ratio", gt=0)] = 10.0
    min_episodes: Annotated[
        int, number("fewer labelled episodes are rejected: a critic needs something to compare", "episodes", ge=1)
    ] = 10
    held_out_share: Annotated[
        float,
        number(
            "of the successes, and of the failures, kept out of learning to compare base and result on; 0: none",
            "share", ge=0, le=0.5,
        ),
    ] = 0.1  # fmt: skip
    max_action_error: Annotated[
        float,
        number(
            "the gate rejects a result whose action error on held-out episodes is above so many times the base's",
            "ratio", gt=0,
        ),
    ] = 2.0  # fmt: skip
    max_offline_loss: Annotated[
        float,
        number(
            "the gate rejects a result of PPO that may lose more by held-out exploring episodes (one-sided 95 % bound)",
            "success rate", ge=0,
        ),
    ] = 0.5  # fmt: skip
    positive_share: Annotated[
        float,
        number("most windows of each task that recap and progress call good: the policy's best", "share", gt=0, lt=1),
    ] = 0.3
    lookahead: Annotated[
        int, number("over which recap and progress measure what a window gained", "control steps", ge=1)
    ] = 20
    condition_dropout: Annotated[
        float, number("share of recap's samples whose prompt does not say whether they are good", "share", ge=0, lt=1)
    ] = 0.1
    guidance: Annotated[
        float,
        number(
            "how far a policy of recap leaves what it usually does behind, in the result's card; 1 is plain"
            " conditioning, more costs two passes",
            "ratio", gt=0,
        ),
    ] = 1.0  # fmt: skip
    noise_kl_weight: Annotated[
        float,
        number("of the divergence from N(0, I) of the noise that dsrl chooses, against its value", "return/nat", gt=0),
    ] = 0.02
    actor_steps: Annotated[int, number("gradients that PPO takes of the log, one after the other", "steps", ge=1)] = 1
    actor_parts: Annotated[
        Literal["attention", "all"],
        about(
            "what of the action expert PPO changes on a log: its attention, whose gradients agree from log to log most,"
            " or all of it"
        ),
    ] = "attention"
    clip: Annotated[float, number("ratios to the base stay within 1 - clip and 1 + clip", "ratio", gt=0)] = 0.2
    gae_lambda: Annotated[float, number("decay of generalised advantage estimation", "1/decision", gt=0, le=1)] = 0.5
    max_kl: Annotated[
        float,
        number(
            "how far from the base, over the whole log, PPO goes; its steps are as long as that takes", "nats", gt=0
        ),
    ] = 0.3
    max_clip_fraction: Annotated[
        float, number("PPO shortens the step after which more ratios are clipped, and ends", "ratio", gt=0, le=1)
    ] = 0.7
    max_behaviour_weight: Annotated[
        float, number("weights base / older version are truncated there", "ratio", gt=0)
    ] = 2.0  # fmt: skip
    min_ess: Annotated[
        float,
        number(
            "effective sample size: PPO rejects an older version whose weights leave less of each sample",
            "ratio",
            gt=0,
            le=1,
        ),
    ] = 0.5
    max_age: Annotated[
        int, number("PPO rejects decisions of versions further back; RLinf allows 1", "versions", ge=0, le=2)
    ] = 2
    max_mismatch: Annotated[
        float,
        number(
            "PPO rejects episodes whose stored log-probability differs by more from the recomputed one, which is used",
            "nats", gt=0,
        ),
    ] = 0.02  # fmt: skip
    imitation_weight: Annotated[
        float | None,
        number("of flow matching on successful episodes beside PPO's loss; null: none", "ratio", gt=0),
        OFF,
    ] = None


@dataclass(frozen=True, config=CHECKED)
class PpoConfig:
    """Online RL on fresh rollouts: hybrid Flow-SDE with PPO by default; docs/results/demo.md says what that reaches.

    Raises ValueError for choices that do not go together.
    """

    env_steps: Annotated[int, number("budget, warm-up included", "control steps", ge=1)] = 120_000
    envs: Annotated[int, number("environments that are stepped side by side", "environments", ge=1)] = 32
    workers: Annotated[int, number("processes that share the environments", "processes", ge=1)] = 2
    decisions: Annotated[
        int,
        number("per environment and update; groups of episodes take whole episodes instead", "decisions", ge=1),
    ] = 16
    warmup_updates: Annotated[int, number("updates that train the critic only", "updates", ge=0)] = 2
    epochs: Annotated[int, number("passes over the decisions of an update", "passes", ge=1)] = 4
    minibatch: Annotated[int, number("decisions of one optimiser step", "decisions", ge=1)] = 256
    actor_learning_rate: Annotated[float, number("Adam's, of the action expert", "1/step", gt=0)] = 6e-5
    critic_learning_rate: Annotated[float, number("Adam's, of the critic", "1/step", gt=0)] = 1e-3
    noise_learning_rate: Annotated[
        float | None, number("of the noise net; null: the actor's", "1/step", gt=0), OFF
    ] = None  # fmt: skip
    vlm_learning_rate: Annotated[
        float | None, number("of vision and language where they learn; null: the actor's", "1/step", gt=0), OFF
    ] = None
    clip: Annotated[float, number("the ratio stays above 1 - clip", "ratio", gt=0)] = 0.2
    clip_high: Annotated[
        float | None, number("the ratio stays below 1 + clip_high; null: as clip", "ratio", gt=0), OFF
    ] = None  # fmt: skip
    dual_clip: Annotated[
        float | None,
        number(
            "bounds what a bad decision whose ratio exploded can weigh (arXiv 1912.09729); 3 is common; null: no bound",
            "ratio", gt=1,
        ), OFF,
    ] = None  # fmt: skip
    gamma: Discount = 0.97
    gae_lambda: Annotated[float, number("decay of generalised advantage estimation", "1/decision", gt=0, le=1)] = 0.95
    max_kl: Annotated[
        float, number("an update ends at the first minibatch whose approximate KL is above", "nats", gt=0)
    ] = 0.075
    max_grad_norm: Annotated[float, number("gradients are scaled down to this norm", "norm", gt=0)] = 1.0
    value_clip: Annotated[
        float | None, number("how far a value may move in one update; pi_RL: 0.2; null: any", "return", gt=0), OFF
    ] = None
    huber_delta: Annotated[
        float | None,
        number("where the value's error turns from squared to absolute; pi_RL: 10; null: never", "return", gt=0),
        OFF,
    ] = None
    entropy_weight: Annotated[
        float | None, number("of Flow-Noise's entropy bonus; pi_RL: 0.005; null: no bonus", "1/nat", gt=0), OFF
    ] = None
    imitation_weight: Annotated[
        float | None,
        number("of flow matching on demonstrations beside the policy's loss; null: none", "ratio", gt=0),
        OFF,
    ] = None
    imitation_demonstrations: Demonstrations = 3

    noise: Annotated[
        Literal["flow-sde", "flow-noise", "cps"],
        about(
            "how a denoise step is made stochastic: by the marginals' SDE, by a net that learns how much, by"
            " coefficient-preserving sampling (arXiv 2509.05952)"
        ),
    ] = "flow-sde"
    steps: Annotated[
        Literal["hybrid", "all"],
        about("which denoise steps are stochastic: one per decision, or each (the two-layer MDP)"),
    ] = "hybrid"
    index: Annotated[
        Literal["sample", "stratified", "shared"],
        about("how the hybrid's step is drawn: per decision, evenly over the environments, one for all of them"),
    ] = "sample"
    schedule: Annotated[
        Literal["paper", "regular"], about("sigma of Flow-SDE: a sqrt(t / (1 - t)), or a sqrt(t)")
    ] = "paper"  # fmt: skip
    reduction: Annotated[
        Literal["sum", "mean_steps", "per_step"],
        about("of the densities of all steps: one ratio from their sum or their mean, or a ratio per step"),
    ] = "sum"
    noise_level: Annotated[
        float, number("a of Flow-SDE and of coefficient-preserving sampling", "normalised action", gt=0)
    ] = 0.5
    anneal_to: Annotated[
        float | None,
        number("the noise level goes there in a line; null: it stays", "normalised action", gt=0),
        OFF,
    ] = None
    anneal_over: Annotated[int, number("in so many updates", "updates", ge=1)] = 50
    std_low: Annotated[
        float, number("lower bound of the standard deviation that Flow-Noise may learn", "normalised action", gt=0)
    ] = 0.08
    std_high: Annotated[float, number("upper bound of it", "normalised action", gt=0)] = 0.16
    denoise_steps: Annotated[
        int | None, number("K; null: the checkpoint's", "denoise steps", ge=1), OFF
    ] = None  # fmt: skip
    execute_horizon: Annotated[
        int | None, number("actions played of a chunk; null: the checkpoint's", "actions", ge=1), OFF
    ] = None

    advantage: Annotated[
        Literal["gae", "grpo"],
        about("against a critic, or against other episodes from the same initial state (GRPO, arXiv 2402.03300)"),
    ] = "gae"
    advantage_scale: Annotated[
        Literal["minibatch", "task"],
        about("what advantages are normalised over: the minibatch, or the batch's decisions of the same instruction"),
    ] = "minibatch"
    group: Annotated[int, number("episodes of one initial state (GRPO)", "episodes", ge=1)] = 8
    rounds: Annotated[int, number("episodes of each environment in an update of GRPO", "episodes", ge=1)] = 1
    group_return: Annotated[Literal["success", "reward"], about("what is compared within a group")] = "success"
    group_low: Annotated[
        float, number("groups with a lower success rate teach nothing", "success rate", gt=0, le=1)
    ] = 0.1  # fmt: skip
    group_high: Annotated[
        float, number("groups with a higher success rate teach nothing", "success rate", gt=0, le=1)
    ] = 0.9  # fmt: skip
    critic: Annotated[
        Literal["state", "expert", "vlm"],
        about(
            "what the value is a function of: `critic_features`, the action expert's outputs (V_expert), the prefix"
            " (V_vlm); each also reads the elapsed share of the episode, so that a time limit is a true end"
        ),
    ] = "state"
    critic_features: Annotated[
        str | None,
        text(
            "what a state critic reads: 'policy' for what the policy reads, or a key of `policy.features.FEATURES`;"
            " null: 'policy', or the simulator's state for a job or command whose base has a camera",
            FEATURE_PATTERN,
        ),
    ] = None

    vlm: Annotated[Part, about("vision, projector and language")] = "frozen"
    expert: Annotated[Literal["train", "lora"], about("action expert and its projections")] = "train"
    lora_rank: LoraRank = 16
    lora_alpha: LoraAlpha = 16.0
    saved_dtype: SavedAs = "float32"
    prefix_batch: Annotated[int, number("decisions whose images are encoded at a time", "decisions", ge=1)] = 32
    torch_threads: Annotated[
        int,
        number(
            "of the learner; more only where nothing else runs: threads that wait for a busy core cost more than they"
            " bring",
            "threads", ge=1,
        ),
    ] = 1  # fmt: skip

    def __post_init__(self) -> None:
        if self.noise == "flow-noise" and self.steps == "hybrid":
            raise ValueError("noise 'flow-noise' applies to every denoise step: set steps to 'all'")
        if self.steps == "hybrid" and self.reduction != "sum":
            raise ValueError(f"reduction '{self.reduction}' needs a density of each step: set steps to 'all'")
        if self.noise != "flow-noise" and self.entropy_weight:
            raise ValueError(f"entropy_weight: noise '{self.noise}' is not learned, it has no entropy; leave it out")
        if self.noise == "cps" and not self.noise_level <= 1.0:
            raise ValueError(f"noise_level {self.noise_level} must be at most 1 for noise 'cps'")
        if self.noise == "cps" and self.denoise_steps == 1:
            raise ValueError("noise 'cps' is zero in the last denoise step: set denoise_steps to 2 or more")
        if not self.std_low < self.std_high:
            raise ValueError(f"std_low {self.std_low} must be below std_high {self.std_high}")
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
