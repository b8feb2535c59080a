"""Deterministic chunks of a seeing policy by compiled passes: a runner for each number of rows.

Only plain draws go this way. Exploration, real-time chunking, guidance and a noise actor are drawn eagerly, as is a
prompt that is longer than what was compiled: no request ever waits for a compiler.

Shape letters: H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.hybrid_sampler import hybrid_sample
from pirl_server.model.families import FAMILIES
from pirl_server.model.flow_model import ChunkInputs, FlowModel
from pirl_server.policy.served_policy import BATCH_SIZES

TOLERANCE = {torch.bfloat16: 0.05, torch.float32: 1e-3}
"""largest difference of a normalised action from the eager pass, by the dtype of the weights"""
TOKENS_TO_SPARE = 16
"""of a compiled prompt beyond the longest known one: the state in it takes more digits at times"""
_LOG = logging.getLogger(__name__)


class CompiledChunks:
    """Runners of one network, built and warmed up. Not thread-safe: the thread that owns the policy calls it."""

    def __init__(
        self,
        model: FlowModel,
        cameras: int,
        steps: int,
        tokens: int,
        sizes: Sequence[int] = BATCH_SIZES,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        """For up to `tokens` words of a prompt. Raises RuntimeError when this machine can't compile."""
        make = FAMILIES[model.config.family].compile
        assert make is not None
        make = partial(make, model, cameras=cameras, steps=steps, buckets=(tokens,), backend=backend)
        self._model, self._steps, self._tokens = model, steps, tokens
        self._runners = {size: make(batch=size) for size in sorted(sizes)}
        for runner in self._runners.values():
            runner.warm_up()

    def chain(self, inputs: ChunkInputs) -> Tensor | None:
        """Latents [rows, K+1, H, D], noise first; None when the rows or the prompts are more than was compiled."""
        rows, used = len(inputs.noise), int(inputs.token_mask.sum(dim=1).max())
        size = next((size for size in self._runners if size >= rows), None)
        if size is None or used > self._tokens:
            return None
        return self._runners[size].chain(inputs)

    def agrees(self, inputs: ChunkInputs, name: str) -> bool:
        """Whether compiled and eager passes give the same chain of these, which fit; logged under the policy's name."""
        compiled = self.chain(inputs)
        assert compiled is not None
        dtype = next(self._model.expert_parameters()).dtype
        difference, most = (
            float((compiled - eager_chain(self._model, inputs, self._steps)).abs().max()),
            TOLERANCE[dtype],
        )
        if difference <= most:
            _LOG.info("%s: chunks are compiled; they differ from eager ones by %.2g at most", name, difference)
            return True
        _LOG.warning("%s: compiled chunks differ from eager ones by %.2g, above %.2g: eager", name, difference, most)
        return False


@torch.inference_mode()
def eager_chain(model: FlowModel, inputs: ChunkInputs, steps: int) -> Tensor:
    """The same latents without a compiler: [rows, K+1, H, D]."""
    prefix = model.encode_prefix(inputs.images, inputs.image_mask, inputs.tokens, inputs.token_mask)
    never = torch.full((len(inputs.noise),), -1, device=inputs.noise.device)
    transition = partial(flow_sde.transition, noise_level=0.0)
    velocity = model.denoiser(prefix, inputs.state, steps)
    return hybrid_sample(velocity, inputs.noise, torch.zeros_like(inputs.noise), never, steps, transition).chain
