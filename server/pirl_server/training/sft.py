"""Supervised start: scripted demonstrations, flow matching, a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from pirl_contract import Contract
from pirl_server.model.config import Pi0Config, tiny, tiny_state
from pirl_server.model.pi0 import Pi0
from pirl_server.policy.card import ModelCard
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.features import STATE_DIM
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.collector import MakeEnv
from pirl_server.training.config import SftConfig
from pirl_server.training.demonstrations import Expert, demonstrate, windows_of
from pirl_server.training.flow_matching import fit
from pirl_server.training.progress import Progress
from pirl_server.training.seeds import demonstration_seeds

HORIZON = 4
DENOISE_STEPS = 4
NOISE_LEVEL = 0.5


def new_card(preset: str, task: str, contract: Contract, instructions: tuple[str, ...]) -> ModelCard:
    """Model card of a fresh policy. Raises ValueError for an unknown preset."""
    features = {"tiny-state": "tabletop_relative", "tiny": "proprioception"}
    if preset not in features:
        raise ValueError(f"preset '{preset}' is not known; there are: {', '.join(features)}")
    return ModelCard(
        name=f"{task} {preset}",
        contract=contract,
        model=model_config(preset, contract),
        features=features[preset],
        action_scale=tuple(field.high or 1.0 for field in contract.action),
        execute_horizon=HORIZON,
        denoise_steps=DENOISE_STEPS,
        noise_level=NOISE_LEVEL,
        instructions=instructions,
        task=task,
    )


def model_config(preset: str, contract: Contract) -> Pi0Config:
    """Sizes of a preset for this robot."""
    sizes = {"tiny": tiny, "tiny-state": tiny_state}
    return sizes[preset](STATE_DIM, contract.action_dim, HORIZON)


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
) -> str:
    """Train a policy on `config.demonstrations` scripted episodes and save it; return the new version.

    Starts from `base`, whose card is kept, or from random weights.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy(card, Pi0(card.model), "new") if base is None else FlowPolicy.load(base)
    env = make_env()
    seeds = demonstration_seeds(seed)
    if config.demonstrations > len(seeds):
        raise ValueError(f"{config.demonstrations} demonstrations, at most {len(seeds)} have seeds of their own")
    demonstrations = [
        demonstrate(env, expert, reset_seed, config.execution_noise, max_steps)
        for reset_seed in seeds[: config.demonstrations]
    ]
    env.close()
    fit(
        policy,
        windows_of(policy, demonstrations),
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        progress=progress,
        seed=seed,
        train_vlm=True,
    )
    lineage = {"parent": policy.version, "method": "sft", "seed": str(seed), "config": str(asdict(config))}
    return save_checkpoint(out, replace(policy.card, lineage=lineage), policy.model.state_dict())
