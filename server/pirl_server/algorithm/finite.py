"""Rejects non-finite numbers before they reach an update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def require_finite(name: str, values: Tensor) -> None:
    """Raise ValueError that names the values, how many are NaN or infinite and where the first one is.

    They may have any shape.
    """
    wrong = ~torch.isfinite(values)
    if bool(wrong.any()):
        first = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"{name}: {int(wrong.sum())} of {values.numel()} values are not finite, the first is "
            f"{float(values[first])} at {list(first)}; the update was skipped"
        )


def gradient_norm(named: Iterable[tuple[str, Tensor]]) -> Tensor:
    """Euclidean norm over the gradients of named parameters; those without a gradient count as 0.

    Raises ValueError that names the first parameter whose gradient is not finite: call it before the optimiser steps.
    The norm is a scalar.
    """
    squares = []
    for name, parameter in named:
        if parameter.grad is not None:
            require_finite(f"gradient of '{name}'", parameter.grad)
            squares.append(parameter.grad.square().sum())
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
