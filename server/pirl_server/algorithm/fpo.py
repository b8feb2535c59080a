"""Flow policy optimisation: a ratio from flow-matching errors, for actions logged without a chain (arXiv 2507.21053).

Shape letters: B decisions, M draws of (t, noise) per decision, H horizon, D action dim.
"""

from __future__ import annotations

from torch import Tensor

from pirl_server.algorithm.flow import flow_matching_loss


def draw_loss(v_BMHD: Tensor, action_BHD: Tensor, noise_BMHD: Tensor) -> Tensor:
    """Flow-matching error [B, M] of each draw, averaged over H and D. Old and new weights must see the same draws."""
    return flow_matching_loss(v_BMHD, action_BHD[:, None], noise_BMHD).mean(dim=(2, 3))


def log_ratio(loss_BM: Tensor, old_loss_BM: Tensor, *, limit: float = 3.0) -> Tensor:
    """Surrogate for log(new / old) [B]: mean over draws of old error - new error, within +-limit.

    Not a density ratio, but 0 for unchanged weights and the right sign; feed its exponential to `ppo.surrogate`, with a
    narrow clip (0.05).
    """
    return (old_loss_BM - loss_BM).mean(dim=1).clamp(-limit, limit)
