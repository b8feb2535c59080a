"""GRPO's advantages: each episode's return relative to its group (arXiv 2402.03300).

Shape letters: T decisions, N episodes side by side, G groups, E episodes per group.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pirl_server.algorithm.advantage import episode_weight, group_relative, mixed_groups
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.batch import DecisionBatch


class NothingToCompareError(Exception):
    """No group of the batch has both better and worse episodes: there is nothing to learn from it."""


def group_advantages(batch: DecisionBatch, config: PpoConfig) -> tuple[Tensor, Tensor]:
    """Advantage of each decision [T, N], and which decisions to learn from [T, N] bool.

    Advantages are scaled so that episodes weigh alike, however long: the policy's loss is proportional to them.
    Groups whose success rate is beyond the limits are left out where success is compared; where rewards are, those of
    equal rewards. Raises NothingToCompareError when none is left.
    """
    outcome_N = batch.episode_success if config.group_return == "success" else batch.episode_return
    outcome_GE = torch.from_numpy(outcome_N.astype(np.float32)).reshape(len(outcome_N) // config.group, config.group)
    try:
        if config.group_return == "success":
            keep_G = mixed_groups(outcome_GE, low=config.group_low, high=config.group_high)
        else:
            keep_G = mixed_groups(outcome_GE, low=-float("inf"), high=float("inf"))
    except ValueError as nothing:
        raise NothingToCompareError(str(nothing)) from None
    keep_N = keep_G.repeat_interleave(config.group)
    learnt_TN = torch.from_numpy(batch.valid_TN) & keep_N
    advantage_N = group_relative(outcome_GE).flatten()
    advantage_N[keep_N] *= episode_weight(learnt_TN[:, keep_N].sum(dim=0))
    return advantage_N.expand(learnt_TN.shape), learnt_TN
