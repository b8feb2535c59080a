"""Compiled inference at fixed shapes; on a GPU two CUDA graphs, prefix and all K steps.

Shapes are fixed by padding: a number of rows, of cameras, and a few text lengths, each compiled once. Masks do the work
that cutting does in eager mode, so the numbers are the same. Eager mode stays what it is; nothing here is needed.

The weights must not change behind a runner's back: what depends on time alone is computed when it is built.

Shape letters: B rows, C cameras, L text tokens, H horizon, D action dim, S state dim, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pirl_server.model.flow_model import ChunkInputs
from pirl_server.model.layers.gemma import Turn
from pirl_server.model.pi0.denoiser import schedule
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.suffix import Condition, Context, suffix_context

TOKEN_BUCKETS = (16, 32, 48, 64, 128, 200)
WARM_UP_RUNS = 3


class Seen(NamedTuple):
    """What the steps read of a batch of observations."""

    keys: Tensor
    values: Tensor
    bias: Tensor | None
    turn: Turn
    state: Tensor | None


def prepare(model: Pi0, inputs: Sequence[Tensor | None]) -> Seen:
    """Run vision and language on images, image mask, tokens, token mask and state.

    In this order: [B, C, 3, h, w], [B, C], [B, L], [B, L], [B, S]; None where the model has no such input.
    """
    images, image_mask, tokens, token_mask, state_BS = inputs
    assert tokens is not None
    assert token_mask is not None
    prefix = model.encode_prefix(images, image_mask, tokens, token_mask, static=True)
    state = model.embed_state(state_BS)
    context = suffix_context(prefix, model.config.horizon, model.expert, state=state is not None)
    return Seen(prefix.keys, prefix.values, context.bias, context.turn, state)


def step(model: Pi0, seen: Seen, condition: Condition, x_BHD: Tensor) -> Tensor:
    """Velocity [B, H, D] at the time of `condition`."""
    context = Context(seen.bias, seen.turn, list(zip(seen.keys.unbind(), seen.values.unbind())))
    out_BSW, _ = model.run_suffix(seen.state, x_BHD, condition, context)
    return model.read_out(out_BSW[:, -x_BHD.shape[1] :])[0]


class CompiledPi0:
    """Runs a model for up to `batch` rows, exactly `cameras` cameras and prompts up to the longest bucket."""

    def __init__(
        self,
        model: Pi0,
        *,
        batch: int,
        cameras: int,
        steps: int,
        buckets: Sequence[int] = TOKEN_BUCKETS,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.model, self.batch, self.cameras, self.buckets = model, batch, cameras, sorted(buckets)
        self.device = model.action_in_proj.weight.device
        with torch.no_grad():
            self.schedule = schedule(model, steps)
        compiled = partial(torch.compile, fullgraph=True, dynamic=False, backend=backend)
        self._prepare: Callable[[Sequence[Tensor | None]], Seen] = compiled(partial(prepare, model))
        self._step: Callable[[Seen, Condition, Tensor], Tensor] = compiled(partial(step, model))
        self._runs: dict[int, tuple[ChunkInputs, Callable[[], Tensor]]] = {}

    def warm_up(self) -> None:
        """Compile, and on a GPU record, every bucket now, so that no request waits for it."""
        for length in self.buckets:
            self._run(length)

    @torch.inference_mode()
    def chain(self, inputs: ChunkInputs) -> Tensor:
        """Latents of a deterministic denoising, noise first, chunk last: [rows, K+1, H, D].

        Raises ValueError for more rows, other cameras or a longer prompt than fit.
        """
        rows, cameras = len(inputs.noise), 0 if inputs.images is None else inputs.images.shape[1]
        used = int(inputs.token_mask.any(dim=0).nonzero().max()) + 1
        if rows > self.batch or cameras != self.cameras or used > self.buckets[-1]:
            raise ValueError(
                f"{rows} rows, {cameras} cameras and {used} tokens exceed the compiled shapes: up to {self.batch} "
                f"rows, {self.cameras} cameras and up to {self.buckets[-1]} tokens"
            )
        buffers, run = self._run(next(length for length in self.buckets if length >= used))
        buffers.fill(inputs, used)
        return run()[:rows].clone()

    def _run(self, length: int) -> tuple[ChunkInputs, Callable[[], Tensor]]:
        if length not in self._runs:
            buffers = ChunkInputs.zeros(self.model.config, self.batch, self.cameras, length, self.device)
            # One variant per bucket is wanted, and another runner's variants count as well.
            with torch.inference_mode(), torch._dynamo.config.patch(recompile_limit=256):
                run = _recorded(self, buffers) if self.device.type == "cuda" else partial(self._chunk, buffers)
                run()
            self._runs[length] = buffers, run
        return self._runs[length]

    def see(self, inputs: ChunkInputs) -> Seen:
        """Vision and language on the buffers."""
        return self._prepare((inputs.images, inputs.image_mask, inputs.tokens, inputs.token_mask, inputs.state))

    def denoise(self, seen: Seen, noise_BHD: Tensor) -> Tensor:
        """K Euler steps: the noise and what each step leaves, the model's actions last. Returns [B, K+1, H, D]."""
        chain = [noise_BHD]
        for condition in self.schedule:
            chain.append(chain[-1] - self._step(seen, condition, chain[-1]) / len(self.schedule))
        return torch.stack(chain, dim=1)

    def _chunk(self, inputs: ChunkInputs) -> Tensor:
        return self.denoise(self.see(inputs), inputs.noise)


def _recorded(runner: CompiledPi0, buffers: ChunkInputs) -> Callable[[], Tensor]:
    """Record prefix and steps as two CUDA graphs that share memory; the result replays them on the buffers."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_RUNS):
            runner.denoise(runner.see(buffers), buffers.noise)
    torch.cuda.current_stream().wait_stream(aside)
    looking, denoising = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    # other threads serve meanwhile: only this one's calls are restricted while it records
    with torch.cuda.graph(looking, capture_error_mode="thread_local"):
        seen = runner.see(buffers)
    with torch.cuda.graph(denoising, pool=looking.pool(), capture_error_mode="thread_local"):
        chain = runner.denoise(seen, buffers.noise)

    def replay() -> Tensor:
        looking.replay()
        denoising.replay()
        return chain

    replay.seen = seen  # type: ignore[attr-defined]  # the second graph reads it: it must outlive this function
    return replay
