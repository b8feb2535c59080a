"""Supervised training: scripted demonstrations or successful episodes, flow matching, a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from pirl_contract import Contract
from pirl_contract.protocols import MakeEnv
from pirl_server.config.training import SftConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model import families
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.features import FEATURES, STATE_DIM, features_of
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_log import EpisodeLog, experience
from pirl_server.training.master_weights import saved_weights
from pirl_server.training.progress import Progress
from pirl_server.training.seeds import demonstration_seeds
from pirl_server.training.supervised.demonstrations import Demonstration, Expert, demonstrate, windows_of
from pirl_server.training.supervised.flow_matching import fit
from pirl_server.training.train_state import TrainStateFolder
from pirl_server.training.window_mixture import sampling_share

HORIZON = 4
DENOISE_STEPS = 4
NOISE_LEVEL = 0.5


def new_card(preset: str, task: str, contract: Contract, instructions: tuple[str, ...]) -> ModelCard:
    """Model card of a fresh policy. Raises ValueError for an unknown preset."""
    if preset not in families.PRESETS:
        raise ValueError(f"preset '{preset}' is not known; there are: {', '.join(families.PRESETS)}")
    model = families.PRESETS[preset](STATE_DIM, contract.action_dim, HORIZON)
    return ModelCard(
        name=f"{task} {preset}",
        contract=contract,
        model=model,
        features=features_of(contract.robot, sees=model.vision is not None),
        action_scale=tuple(field.high or 1.0 for field in contract.action),
        execute_horizon=HORIZON,
        denoise_steps=DENOISE_STEPS,
        noise_level=NOISE_LEVEL,
        instructions=instructions,
        task=task,
    )


def sft(
    out: Path,
    card: ModelCard,
    make_env: MakeEnv,
    expert: Expert,
    max_steps: int,
    config: SftConfig,
    seed: int,
    progress: Progress,
    base: Path | None = None,
    states: TrainStateFolder | None = None,
) -> str:
    """Train a policy on `config.demonstrations` scripted episodes and save it; return the new version.

    Starts from `base` or from random weights. Of a base's card all is kept but the task, which is `card`'s: its
    sentences are added to those that the base knows. A run that finds its state in `states` continues from there.
    Raises ValueError for more demonstrations than there are seeds.
    """
    policy = _start(card, base, seed)
    env = make_env()
    seeds = demonstration_seeds(seed)
    if config.demonstrations > len(seeds):
        raise ValueError(f"{config.demonstrations} demonstrations, there are {len(seeds)} reserved seeds")
    demonstrations = [
        demonstrate(env, expert, reset_seed, config.execution_noise, max_steps)
        for reset_seed in seeds[: config.demonstrations]
    ]
    env.close()
    said = {observation.instruction for observations, _ in demonstrations for observation in observations}
    windows = replace(windows_of(policy, demonstrations), aux_target=_told(config, policy, demonstrations))
    said |= set(card.instructions)
    return _train(out, base, policy, windows, card.task, said, config, seed, progress, states)


def sft_episodes(
    out: Path,
    card: ModelCard,
    episodes: Iterable[Episode],
    config: SftConfig,
    seed: int,
    progress: Progress,
    base: Path | None = None,
    states: TrainStateFolder | None = None,
    lineage: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Filtered behaviour cloning: imitate what led to success in the episodes labelled one; return the version.

    That is what a human did, and what the policy did after the last takeover; dry runs are left out. The sentences of
    the episodes are added to those that the policy knows. `lineage` is recorded with the result. Raises ValueError when
    no episode succeeded, and for one that was logged under another contract.
    """
    if config.grounding:
        raise ValueError("grounding needs object states from a simulator: set source to 'expert', or remove it")
    policy = _start(card, base, seed)
    good = experience(EpisodeLog.of(episodes).where(lambda each: each.info.success is True), progress)
    data = episode_windows(policy, good)
    windows = replace(data.windows, share=sampling_share(data, config, among=data.outcome == 1.0))
    said, recorded = set(data.instructions), {**good.lineage(), **lineage}
    return _train(out, base, policy, windows, card.task, said, config, seed, progress, states, recorded)


def _start(card: ModelCard, base: Path | None, seed: int) -> FlowPolicy:
    torch.manual_seed(seed)
    return FlowPolicy(card, families.build(card.model), "new") if base is None else FlowPolicy.load(base)


def _told(config: SftConfig, policy: FlowPolicy, demonstrations: Sequence[Demonstration]) -> torch.Tensor | None:
    """Auxiliary targets of each sample [M, F]. Raises ValueError when there are none."""
    if not config.grounding:
        return None
    if config.grounding not in FEATURES:
        raise ValueError(f"grounding '{config.grounding}' is not known; there are: {', '.join(FEATURES)}")
    if policy.card.model.vision is None or config.vlm != "train":
        raise ValueError("grounding trains the vision tower: it needs a preset with a camera, and vlm 'train'")
    states = np.stack([observation.state for observations, _ in demonstrations for observation in observations])
    return torch.from_numpy(FEATURES[config.grounding](states))


def _train(
    out: Path,
    base: Path | None,
    policy: FlowPolicy,
    windows: ChunkDataset,
    task: str,
    said: set[str],
    config: SftConfig,
    seed: int,
    progress: Progress,
    states: TrainStateFolder | None,
    recorded: Mapping[str, str] = MappingProxyType({}),
) -> str:
    fit(policy, windows, config, seed, progress, states=states)
    weights, dtype = saved_weights(policy.model, config.saved_dtype, base)
    made = {"parent": policy.version, "method": "sft", "seed": str(seed), "config": str(asdict(config))} | dtype
    new = tuple(sorted(said - set(policy.instructions)))
    card = replace(
        policy.card,
        task=task,
        lineage=made | dict(recorded),
        instructions=policy.instructions + new,
        prefix_delay=config.prefix_delay,
    )
    return save_checkpoint(out, card, weights, parent=base)
