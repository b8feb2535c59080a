"""Comparable advantages: normalised over a batch, or relative to a group of episodes from one initial state.

Shape letters: G groups, N episodes per group or in all; `normalise` takes any shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.finite import require_finite


def normalise(advantage: Tensor, valid: Tensor) -> Tensor:
    """(A - mean) / (std + 1e-5) over the valid entries; 0 elsewhere and when nothing varies. Any shape, elementwise."""
    weight = valid.to(advantage.dtype)
    count = weight.sum().clamp(min=1.0)
    centred = (advantage - (advantage * weight).sum() / count) * weight
    return centred / (((centred**2).sum() / count).sqrt() + 1e-5)


def group_relative(return_GN: Tensor) -> Tensor:
    """GRPO: (R - group mean) / (group std + 1e-6), unbiased std; an all-equal group gives 0 (arXiv 2402.03300).

    Raises ValueError for no group, for groups of fewer than two episodes and for a return that is not finite. Returns
    [G, N].
    """
    groups, episodes = return_GN.shape
    if groups == 0 or episodes < 2:
        raise ValueError(
            f"{groups} groups of {episodes} episodes can't be compared within groups; "
            "collect at least one group of two episodes from the same initial state"
        )
    require_finite("returns of the groups", return_GN)
    centred_GN = return_GN - return_GN.mean(dim=1, keepdim=True)
    return centred_GN / (torch.std(return_GN, dim=1, keepdim=True) + 1e-6)


def episode_weight(decisions_N: Tensor) -> Tensor:
    """Weight [N] of each decision of N episodes of so many decisions, at least 1: all episodes weigh alike in a mean.

    mean(decisions) / decisions: weighted decisions weigh 1 on average. A plain mean would let long episodes, which are
    the failures where a success ends one, outweigh the others: GRPO's advantages would no longer balance within a
    group. RLinf divides by valid / max decisions to the same end.
    """
    return decisions_N.float().mean() / decisions_N


def mixed_groups(return_GN: Tensor, *, low: float = 0.1, high: float = 0.9) -> Tensor:
    """Which groups to learn from [G] bool: mean return within [low, high] and not all equal (pi_RL filters 0.1-0.9).

    Groups where everything succeeded or everything failed carry no comparison. Raises ValueError when none is left.
    """
    mean_G = return_GN.mean(dim=1)
    spread_G = return_GN.amax(dim=1) > return_GN.amin(dim=1)
    keep_G = spread_G & (mean_G >= low) & (mean_G <= high)
    if not bool(keep_G.any()):
        above, below = int((mean_G > high).sum()), int((mean_G < low).sum())
        raise ValueError(
            f"none of {len(return_GN)} groups has both better and worse episodes: {above} have a mean return above "
            f"{high}, {below} below {low}; use harder or easier initial states, larger groups, or PPO with its critic"
        )
    return keep_G


def require_both_outcomes(success: Tensor) -> None:
    """Reject episodes that all ended alike, for learners that have no critic to compare with.

    `success`: [E] bool of E episodes. Raises ValueError that says which outcome is missing.
    """
    wins, episodes = int(success.sum()), len(success)
    if wins in (0, episodes):
        have, miss = ("a success", "failures") if wins else ("a failure", "successes")
        raise ValueError(
            f"each of {episodes} episodes is {have}: without both, actions cannot be compared; add {miss}"
            if episodes
            else "there are no episodes to learn from"
        )
