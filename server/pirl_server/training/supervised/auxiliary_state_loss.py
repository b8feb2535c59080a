"""Auxiliary loss: predict object state from the image prefix.

The action alone says too little about an image: 11,555 windows of `PushCube-v1` taught a small policy one of the
cube's two coordinates and not the other. pi0.5 likewise learns to locate objects beside acting (arXiv 2504.16054). The
linear map that is asked is thrown away afterwards; the policy that remains sees no more than its cameras.

Shape letters: M windows, B minibatch, F features, L layers, V key/value heads, P prefix tokens, E head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.model.prefix import Prefix

WEIGHT = 0.25
"""of the squared error beside flow matching's, in features of `policy.features`: a decimetre is 1"""


class AuxiliaryStateLoss(nn.Module):
    """A linear map from the mean value of the prefix's tokens, all layers together, to the predicted state [M, F].

    The mean is what attention gives an expert that does not know yet where to look.
    """

    def __init__(self, config: FlowModelConfig, told_MF: Tensor) -> None:
        super().__init__()
        self._told = told_MF
        self.map = nn.Linear(config.depth * config.kv_heads * config.head_dim, told_MF.shape[1])

    def loss(self, prefix: Prefix, rows_B: Tensor) -> Tensor:
        """Squared error, summed over the features: those that are always zero weigh nothing. A scalar."""
        exists_BP1 = prefix.mask[:, :, None].float()
        values_BPF = prefix.values.permute(1, 3, 0, 2, 4).flatten(2).float()  # from [L, B, V, P, E]
        mean_BF = (values_BPF * exists_BP1).sum(dim=1) / exists_BP1.sum(dim=1)
        error = self.map(mean_BF) - self._told[rows_B].to(mean_BF.device)
        return WEIGHT * torch.square(error).sum(dim=1).mean()
