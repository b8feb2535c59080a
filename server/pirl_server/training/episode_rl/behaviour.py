"""Log-probability of logged decisions under the checkpoints that drew them, recomputed, and under the one that learns.

The server's stored density is a control, not an input: it may come from other kernels or another precision. Where the
two differ by more than a limit the episode is left out, for then it is not known what acted.

Shape letters: M decisions of all episodes, B of a minibatch, H horizon, D action dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.density import sum_executed
from pirl_server.algorithm.hybrid_sampler import transition_log_prob
from pirl_server.algorithm.metrics import effective_sample_size
from pirl_server.config.training import EpisodesConfig, FlowMatchingConfig
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.training.episode_rl.logged_decisions import LoggedDecisions, Reasons, listed
from pirl_server.training.episode_rl.methods.method import Archive
from pirl_server.training.master_weights import widen
from pirl_server.training.prefix_cache import PrefixOf
from pirl_server.training.supervised.flow_matching import prefixes

BATCH = 256
SAME = ("features", "action_scale", "processing", "family", "denoise_steps", "guidance")
"""what two cards must have in common for one's chains to have a density under the other"""


@dataclass(frozen=True)
class Behaviour:
    """What acted, for decisions that the policy's loss may learn from."""

    data: LoggedDecisions
    """`acted` without the decisions that were left out here"""
    log_prob: Tensor
    """[M] recomputed under each decision's own checkpoint; 0 where not acted"""
    proximal: Tensor
    """[M] under the base, in the precision that it learns in"""
    age: Tensor
    """[M] int64 versions between the one that acted and the base"""
    why: Reasons
    """why decisions were left out, and how many"""
    mismatch: float
    """largest difference of stored and recomputed log-probability among those that were kept"""
    ess: dict[str, float]
    """effective sample size of the weights proximal / behaviour, as a share, by version"""


def ages(base: FlowPolicy, archive: Archive, most: int) -> dict[str, int]:
    """The base and its ancestors by version, at most `most` versions back, as far as the archive keeps them."""
    found, card = {base.version: 0}, base.card
    for age in range(1, most + 1):
        parent = card.lineage.get("parent", "")
        folder = archive(parent) if parent else None
        if folder is None:
            break
        found[parent], card = age, load_card(folder)
    return found


def behaviour(policy: FlowPolicy, data: LoggedDecisions, config: EpisodesConfig, archive: Archive) -> Behaviour:
    """Recompute the densities of the decisions that may teach, and leave out those that may not after all.

    Raises ValueError, with the reasons, when none is left.
    """
    known, why = ages(policy, archive, config.max_age), Reasons()
    acted, found, age = data.acted.clone(), torch.zeros(len(data)), torch.zeros(len(data), dtype=torch.int64)
    served = log_probs(policy, data)
    proximal = _proximal(policy, data, config, served)
    for number, version in enumerate(data.versions):
        mine = acted & (data.version == number)
        drawn_by = _behaviour_policy(policy, version, known, archive, config.max_age)
        if isinstance(drawn_by, str):
            why[drawn_by] += int(mine.sum())
            acted &= ~mine
            continue
        age[mine] = known[version]
        again = served if drawn_by is policy else log_probs(drawn_by, replace(data, acted=mine))
        found = torch.where(mine, again, found)
    apart = torch.where(acted, (found - data.stored_log_prob).abs(), torch.zeros(()))
    for episode in torch.unique(data.episode[apart > config.max_mismatch]):
        mine = acted & (data.episode == episode)
        why[f"are of episodes whose stored log-probability is off by more than {config.max_mismatch:g}"] += int(
            mine.sum()
        )
        acted &= ~mine
    ess = _gate(data, acted, proximal - found, config, why)
    if not acted.any():
        raise ValueError(f"no decision is left that PPO can learn from: {listed(why)}{_advice(why, apart)}")
    kept = replace(data, acted=acted)
    return Behaviour(kept, found * acted, proximal * acted, age, why, float((apart * acted).max()), ess)


def _proximal(policy: FlowPolicy, data: LoggedDecisions, config: EpisodesConfig, served: Tensor) -> Tensor:
    """Densities [M] of the base in the precision that it learns in: the ratio to them is 1 before the first step."""
    dtypes = [parameter.dtype for parameter in policy.model.parameters()]
    widen(policy.model, config.vlm, config.expert)
    same = dtypes == [parameter.dtype for parameter in policy.model.parameters()]
    return served if same else log_probs(policy, data)


def _gate(
    data: LoggedDecisions, acted: Tensor, log_weight: Tensor, config: EpisodesConfig, why: Reasons
) -> dict[str, float]:
    """Effective sample size of each version's weights; versions below the limit are taken out of `acted` in place."""
    found = {}
    for number, version in enumerate(data.versions):
        mine = acted & (data.version == number)
        if not mine.any():
            continue
        found[version] = float(effective_sample_size(log_weight.exp(), mine))
        if found[version] < config.min_ess:
            why[f"are of version {version}, whose weights leave {found[version]:.2f} of a sample each"] += int(
                mine.sum()
            )
            acted &= ~mine
    return found


def _behaviour_policy(
    policy: FlowPolicy, version: str, known: dict[str, int], archive: Archive, most: int
) -> FlowPolicy | str:
    """The policy that acted, or why it is not to be had."""
    if version not in known:
        return f"are of version {version}, which is not the base or one of its {most} versions before it"
    if version == policy.version:
        return policy
    folder = archive(version)
    assert folder is not None
    other = FlowPolicy.load(folder)
    if name := _differs(policy.card, other.card):
        return f"are of version {version}, whose {name} are not the base's"
    return other


def _differs(card: ModelCard, other: ModelCard) -> str:
    return next((name for name in SAME if getattr(card, name) != getattr(other, name)), "")


def _advice(why: Reasons, apart: Tensor) -> str:
    if not any("off by more" in reason for reason in why):
        return ""
    return f"; the largest difference is {float(apart.max()):.3g}: raise max_mismatch to use the recomputed one"


@torch.no_grad()
def log_probs(policy: FlowPolicy, data: LoggedDecisions) -> Tensor:
    """Log-density [M] of what was executed, of the rows that `acted`; 0 elsewhere."""
    found, prefix_of = torch.zeros(len(data)), frozen_prefixes(policy, data)
    for rows in _batches(data.acted):
        found[rows] = log_prob(policy, data, rows, prefix_of)
    return found


def frozen_prefixes(policy: FlowPolicy, data: LoggedDecisions) -> PrefixOf:
    """How decisions get their prefixes where vision and language do not learn."""
    return prefixes(policy, data, FlowMatchingConfig(vlm="frozen"), torch.Generator())


def log_prob(policy: FlowPolicy, data: LoggedDecisions, rows_B: Tensor, prefix_of: PrefixOf) -> Tensor:
    """Log-density [B] that the present weights give to the played entries of logged transitions, with its gradient."""
    features, prefix = data.features[rows_B], prefix_of(rows_B)

    def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
        return policy.model.velocity(prefix, features, x_BHD, t_B).float()

    before, after = data.latents[rows_B].unbind(1)
    transition = partial(flow_sde.transition, noise_level=data.noise_level[rows_B])
    element = transition_log_prob(velocity, before, after, data.index[rows_B], policy.card.denoise_steps, transition)
    return sum_executed(element, data.executed[rows_B], policy.contract.action_dim)


def _batches(mask_M: Tensor) -> Iterator[Tensor]:
    yield from torch.split(torch.nonzero(mask_M)[:, 0], BATCH)
