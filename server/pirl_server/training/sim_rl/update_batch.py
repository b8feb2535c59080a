"""PPO minibatch source: policy inputs, chains, advantages.

Vision and language are frozen by default: a decision's prefix is then encoded once, before the run where it is the
instruction's alone, else in the rollout or before the update, and every epoch selects rows of it. Where they learn,
each minibatch encodes its own.

Shape letters: T decisions, N environments, B decisions of a minibatch, M of the batch, C stored latents, H horizon,
D action dim, F features, K denoise steps, S state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from pirl_server.algorithm.advantage import normalise
from pirl_server.algorithm.gae import gae
from pirl_server.config.training import PpoConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array
from pirl_server.training.prefix_cache import PrefixOf, cache_rows, encoder, selector, to_prefix
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.sim_rl.group_advantages import group_advantages
from pirl_server.training.sim_rl.learner import Learner


@dataclass(frozen=True)
class Decisions:
    """What an update learns from, with what the critic made of it."""

    prefix_of: PrefixOf
    """shared by all minibatches"""
    number: Tensor
    """[B] within the batch"""
    features: Tensor
    """[B, F] what the policy reads"""
    critic: Tensor
    """[B, F] or [B, K, F]: what the critic reads, with the elapsed share"""
    chain: Tensor
    """[B, C, H, D]"""
    index: Tensor
    old_log_prob: Tensor
    """[B] or [B, K]"""
    advantage: Tensor
    returns: Tensor
    """what the value should have been; 0 without a critic, as the next"""
    old_value: Tensor
    """what it was"""

    def __len__(self) -> int:
        return len(self.returns)

    def select(self, rows: Tensor) -> Decisions:
        """A minibatch. `rows` [B] int64."""
        columns = [field.name for field in fields(self) if field.name != "prefix_of"]
        return Decisions(self.prefix_of, *(getattr(self, name)[rows] for name in columns))


def prepare(learner: Learner, batch: DecisionBatch, config: PpoConfig) -> Decisions:
    """Advantages and returns: by GAE with the present critic, or within groups.

    Raises RuntimeError for a reward or feature that is not finite, before anything has learnt from it, and
    NothingToCompareError.
    """
    for name in ("reward_TN", "features_TNF", "last_features_NF", "log_prob_TN"):
        if not np.isfinite(getattr(batch, name)).all():
            raise RuntimeError(f"{name.partition('_')[0]}: a rollout value is not finite; the update was skipped")
    valid_TN = torch.from_numpy(batch.valid_TN)
    if learner.critic is None:
        advantage_TN, valid_TN = group_advantages(batch, config)
        return_TN = value_TN = torch.zeros(advantage_TN.shape)
    else:
        advantage_TN, return_TN, value_TN = critic_advantages(learner, batch, config)
    prefix_of, features = policy_inputs(learner, batch, config)

    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).flatten(0, 1)

    everything = Decisions(
        prefix_of,
        torch.arange(valid_TN.numel()),
        features,
        flat(batch.features_TNF),
        flat(batch.chain_TNKHD),
        flat(batch.index_TN),
        flat(batch.log_prob_TN),
        advantage_TN.flatten(),
        return_TN.flatten(),
        value_TN.flatten(),
    )
    return everything if valid_TN.all() else everything.select(valid_TN.flatten().nonzero()[:, 0])


def critic_advantages(learner: Learner, batch: DecisionBatch, config: PpoConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Advantages, returns and values [T, N]. Episode ends are true ends: elapsed time is a feature."""
    done_TN = torch.from_numpy(batch.done_TN)
    never_TN = torch.zeros_like(done_TN)
    with torch.no_grad():
        value_TN = learner.value(torch.from_numpy(batch.features_TNF))
        last_N = learner.value(torch.from_numpy(batch.last_features_NF))
    advantage_TN, return_TN = gae(
        torch.from_numpy(batch.reward_TN), value_TN, last_N, done_TN, never_TN, torch.zeros_like(value_TN), ~never_TN,
        gamma=config.gamma, lam=config.gae_lambda,
    )  # fmt: skip
    if config.advantage_scale == "task":
        advantage_TN = per_task(advantage_TN, torch.from_numpy(batch.sentence_TN))
    return advantage_TN, return_TN, value_TN


def per_task(advantage_TN: Tensor, sentence_TN: Tensor) -> Tensor:
    """Advantages normalised over the decisions of each instruction: one task's large rewards do not drown another's.

    Returns [T, N].
    """
    scaled_TN = torch.zeros_like(advantage_TN)
    for sentence in np.unique(sentence_TN.numpy()):
        mine_TN = sentence_TN == sentence
        scaled_TN = torch.where(mine_TN, normalise(advantage_TN, mine_TN), scaled_TN)
    return scaled_TN


def policy_inputs(learner: Learner, batch: DecisionBatch, config: PpoConfig) -> tuple[PrefixOf, Tensor]:
    """How decisions get their prefixes, and the policy's features [M, F], as the rollout's policy had them.

    Without a state in the batch the first are the instructions' and the features are the critic's.
    """
    sentence = torch.from_numpy(batch.sentence_TN.ravel())
    if batch.state_TNS is None:
        assert learner.prefixes is not None
        features = torch.from_numpy(batch.features_TNF).flatten(0, 1)[:, :-1]
        return selector(learner.prefixes, sentence), features
    policy, state_MS = learner.policy, batch.state_TNS.reshape(len(sentence), -1)
    features = torch.from_numpy(policy.features(state_MS))
    if learner.prefixes is not None:
        return selector(learner.prefixes, sentence), features
    if batch.prefix is not None:
        return to_prefix(batch.prefix).select, features
    if config.vlm != "frozen":
        return _encoder(policy, batch, sentence, state_MS), features
    rows = torch.arange(len(sentence))
    tokens, mask = policy.processor.prompts([policy.instructions[index] for index in sentence], state_MS)
    return cache_rows(policy, tokens, mask, rows, _pictures(batch), config.prefix_batch).select, features


def _encoder(policy: FlowPolicy, batch: DecisionBatch, sentence_M: Tensor, state_MS: Array) -> PrefixOf:
    if policy.processor.state_in_prompt:
        tokens, mask = policy.processor.prompts([policy.instructions[index] for index in sentence_M], state_MS)
        return encoder(policy, tokens, mask, torch.arange(len(sentence_M)), _pictures(batch))
    tokens, mask = policy.prompt_tokens(policy.instructions)
    return encoder(policy, tokens, mask, sentence_M, _pictures(batch))


def _pictures(batch: DecisionBatch) -> dict[str, np.ndarray] | None:
    if batch.images is None:
        return None
    return {name: each.reshape(-1, *each.shape[2:]) for name, each in batch.images.items()}
