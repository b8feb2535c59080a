"""Gemma's norms: the plain one, and pi0.5's, whose gain, shift and gate come from flow time (adaRMS).

Norms compute in float32 or wider and return the dtype they were given.

Shape letters: B batch, N times, S tokens, W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import rms_norm

EPS, LLAMA_EPS = 1e-6, 1e-5
EPS_LIKE = {
    (eps, dtype): torch.tensor(eps, dtype=dtype) for eps in (EPS, LLAMA_EPS) for dtype in (torch.float32, torch.float64)
}
"""ready as tensors: converting a Python number costs a CPU more than the arithmetic on a norm"""


def normalised(x: Tensor, eps: float = EPS) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, of x's dtype, float32 or wider; eps is one of `EPS_LIKE`.

    A GPU has a fused kernel for it. On a CPU torch makes it of a dozen calls; these four are twice as fast. x and
    the result have the same shape [..., W].
    """
    if x.is_cuda:
        return rms_norm(x, x.shape[-1:], None, eps)
    length: Tensor = vector_norm(x, dim=-1, keepdim=True)
    return x * torch.addcmul(EPS_LIKE[eps, x.dtype], length, length, value=1.0 / x.shape[-1]).rsqrt_()


def widened(x: Tensor) -> Tensor:
    """x in float32 or wider. Any shape."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Modulation(NamedTuple):
    """What flow time does to one norm and to the residual behind it; each broadcasts against tokens [B, S, W]."""

    gain: Tensor
    """1 + scale"""
    shift: Tensor
    gate: Tensor


class RMSNorm(nn.Module):
    """x / rms(x) * (1 + weight)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        """Normalise the last axis of x [..., W]; the result has the same shape."""
        assert modulation is None, "a plain norm takes no time"
        y = normalised(widened(x))
        return torch.addcmul(y, y, self.weight.to(y.dtype)).to(x.dtype)


class AdaRMSNorm(nn.Module):
    """x / rms(x) * (1 + scale) + shift, with scale, shift and gate a linear function of the condition.

    Starts as identity blocks: zero weight and bias make every gate 0.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def modulation(self, condition_NSW: Tensor) -> Modulation:
        """Gain, shift and gate [N, S, W] for N times of S tokens; S is 1 where all tokens share theirs."""
        scale, shift, gate = self.dense(condition_NSW.to(self.dense.weight.dtype)).chunk(3, dim=-1)
        return Modulation(1.0 + scale, shift, gate)

    def forward(self, x: Tensor, modulation: Modulation | None = None) -> Tensor:
        """Normalise and modulate the last axis of x [B, S, W]; the result has the same shape."""
        assert modulation is not None, "an adaptive norm needs a time"
        y = normalised(widened(x))
        return torch.addcmul(modulation.shift.to(y.dtype), y, modulation.gain.to(y.dtype)).to(x.dtype)


def residual(x: Tensor, branch: Tensor, modulation: Modulation | None) -> Tensor:
    """x + branch, or x + gate * branch after an adaptive norm. All are [B, S, W]."""
    return x + branch if modulation is None else torch.addcmul(x, branch, modulation.gate.to(x.dtype))
