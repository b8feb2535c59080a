"""Supervised flow matching (paper Eq. 2): the loss of pi0's own training, on recorded actions.

Only the contract's action dimensions are in the loss. openpi also fits the zeros that pad them to the model's width;
lerobot does not: capacity should not go into dimensions that no robot reads.

With a prefix delay the first actions of a chunk are given clean, as many as are drawn, and only the others are in the
loss (training-time real-time chunking, arXiv 2512.05964).

Shape letters: M windows, B minibatch, H horizon, D the contract's actions, A the model's (A >= D), F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pirl_server.algorithm.awr import weighted_flow_matching_loss
from pirl_server.algorithm.flow import draw_time, flow_matching_loss, interpolate
from pirl_server.algorithm.rtc import draw_delays, given_tokens, start_given, token_times
from pirl_server.config.training import FlowMatchingConfig
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.prefix_cache import PrefixOf, View, cache_rows, encoder, selector
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.augment import augment
from pirl_server.training.supervised.auxiliary_state_loss import AuxiliaryStateLoss
from pirl_server.training.supervised.ema import Ema
from pirl_server.training.supervised.trainable_parts import freeze_and_adapt
from pirl_server.training.train_state import TrainParts, TrainState, TrainStateFolder

REPORT_EVERY = 25
LOWEST = 0.05
"""share of the learning rate that the cosine ends at"""

DataT = TypeVar("DataT", bound=ChunkDataset)


@dataclass(frozen=True)
class Minibatch(Generic[DataT]):
    """What a loss is taken of."""

    data: DataT
    rows: Tensor
    """[B] int64 of `data`"""
    prefix: Prefix
    """of those rows, where the model is"""
    generator: torch.Generator
    """on the CPU, for the loss's own noise"""


def loss(
    policy: FlowPolicy,
    windows: ChunkDataset,
    rows: Tensor,
    prefix: Prefix,
    generator: torch.Generator,
    prefix_delay: int = 0,
) -> Tensor:
    """Weighted mean error of the velocity on the valid actions of the given rows at random times, in float32.

    `rows` [B] int64; a scalar with a gradient.
    """
    device, real = prefix.mask.device, policy.contract.action_dim
    action, learnt = windows.actions[rows], windows.valid[rows]
    noise = torch.randn(action.shape, generator=generator)
    t = draw_time(len(rows), generator)
    x = interpolate(action, noise, t)
    if prefix_delay:
        given = given_tokens(policy.horizon, draw_delays(len(rows), prefix_delay, generator))
        t, x, learnt = token_times(t, given), start_given(x, action, given), learnt & ~given
    velocity = policy.model.velocity(prefix, windows.features[rows].to(device), x.to(device), t.to(device)).float()
    error = flow_matching_loss(velocity[..., :real], *(part[..., :real].to(device) for part in (action, noise)))
    return weighted_flow_matching_loss(error, windows.weight[rows].to(device), learnt.to(device))


def fit(
    policy: FlowPolicy,
    windows: DataT,
    config: FlowMatchingConfig,
    seed: int,
    progress: Progress,
    loss_of: Callable[[Minibatch[DataT]], Tensor] | None = None,
    states: TrainStateFolder | None = None,
) -> float:
    """Train in place, return the mean loss of the last steps. With adapters, `lora.merged_state_dict` is the result.

    `loss_of` gives the scalar loss [] of a minibatch; without it that is flow matching's. A run that finds its state in
    `states` continues from there, as if it had not stopped. Raises ValueError when the config leaves nothing to train,
    gives whole chunks or names a device that is not there, and for the state of another run.
    """
    if config.prefix_delay >= policy.horizon:
        raise ValueError(f"prefix_delay {config.prefix_delay} must be below the horizon of {policy.horizon} actions")
    run = _Run(policy, windows, config, seed, loss_of or partial(_flow_matching, policy, config))
    if states is not None and (state := states.load()) is not None:
        run.restore(state)
    for step in range(run.step + 1, config.steps + 1):
        run.advance(step)
        if states is not None and states.due(step):
            states.save(run.state())
        if step % REPORT_EVERY == 0 or step == config.steps:
            _report(progress, step, config.steps, run.mean_loss)
            if progress.cancelled:
                break
    if run.ema is not None:
        run.ema.apply()
    policy.model.to("cpu")
    return run.mean_loss


class _Run(Generic[DataT]):
    """One run of `fit`: what learns, and how far it is."""

    def __init__(
        self,
        policy: FlowPolicy,
        windows: DataT,
        config: FlowMatchingConfig,
        seed: int,
        loss_of: Callable[[Minibatch[DataT]], Tensor],
    ) -> None:
        self._windows, self._config, self._seed, self._loss_of = windows, config, seed, loss_of
        self._generator = torch.Generator().manual_seed(seed)
        self._parameters = freeze_and_adapt(policy.model, config)
        _to(policy, config.device)
        self._auxiliary: AuxiliaryStateLoss | None = None
        if windows.aux_target is not None:
            self._auxiliary = AuxiliaryStateLoss(policy.card.model, windows.aux_target).to(config.device)
            self._parameters = [*self._parameters, *self._auxiliary.parameters()]
        self._prefix_of = prefixes(policy, windows, config, self._generator)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.ema = Ema(self._parameters, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self._recent: list[float] = []

    @property
    def mean_loss(self) -> float:
        """Of the last steps."""
        return sum(self._recent) / len(self._recent)

    def advance(self, step: int) -> None:
        """Take gradient step number `step`, from 1."""
        config = self._config
        rows = self._windows.draw(config.batch_size, self._generator)
        with _precision(config):
            prefix = self._prefix_of(rows)
            told = 0.0 if self._auxiliary is None else self._auxiliary.loss(prefix, rows)
            if config.draws > 1:
                draws = torch.arange(len(rows)).repeat(config.draws)
                rows, prefix = rows[draws], prefix.select(draws.to(config.device))
            value = self._loss_of(Minibatch(self._windows, rows, prefix, self._generator))
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(config, step - 1)
        self._optimizer.zero_grad(set_to_none=True)
        (value + told).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        if self.ema is not None:
            self.ema.update()
        self.step, self._recent = step, [*self._recent, float(value.detach())][-REPORT_EVERY:]

    def state(self) -> TrainState:
        """The run between two steps."""
        return TrainState.of(self._parts(), self.step, self._seed, {"recent_losses": self._recent})

    def restore(self, state: TrainState) -> None:
        """Continue from there. Raises ValueError for the state of another run."""
        state.restore(self._parts(), self._seed)
        self.step, self._recent = state.step, list(state.counters["recent_losses"])
        if self.ema is not None:
            self.ema.resume(state.step)

    def _parts(self) -> TrainParts:
        tensors: dict[str, Tensor] = {str(number): each for number, each in enumerate(self._parameters)}
        if self.ema is not None:
            tensors |= {f"average {number}": each for number, each in enumerate(self.ema.average)}
        return TrainParts(tensors, {"adamw": self._optimizer}, {"batches": self._generator})


def _flow_matching(policy: FlowPolicy, config: FlowMatchingConfig, batch: Minibatch[ChunkDataset]) -> Tensor:
    return loss(policy, batch.data, batch.rows, batch.prefix, batch.generator, config.prefix_delay)


def prefixes(
    policy: FlowPolicy, windows: ChunkDataset, config: FlowMatchingConfig, generator: torch.Generator
) -> PrefixOf:
    """How a batch gets its prefixes: with their graph, without it, or once for the whole run.

    The last needs frozen vision and language and no camera: images have a prefix each, which would not fit.
    """
    frozen = config.vlm == "frozen"
    if frozen and windows.images is None:
        everyone = torch.arange(len(windows.tokens))
        with _precision(config):
            kept = cache_rows(policy, windows.tokens, windows.token_mask, everyone, None, config.batch_size)
        return selector(kept, windows.prompt)
    view = _view(policy, config, generator)
    encode = encoder(policy, windows.tokens, windows.token_mask, windows.prompt, windows.images, view)

    def without_graph(rows: Tensor) -> Prefix:
        with torch.no_grad():
            return encode(rows)

    return without_graph if frozen else encode


def learning_rate_share(config: FlowMatchingConfig, step: int) -> float:
    """Share of the highest learning rate after `step` steps: linear rise, then half a cosine down to `LOWEST`."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return LOWEST + (1.0 - LOWEST) * 0.5 * (1.0 + math.cos(math.pi * done))


def _view(policy: FlowPolicy, config: FlowMatchingConfig, generator: torch.Generator) -> View:
    processing = policy.card.processing
    keys = [camera.name for camera in policy.contract.cameras]
    if processing is not None:
        keys = [f"{slot.key} {slot.camera}" for slot in processing.slots]
    return lambda images: augment(images, keys, config.augment, generator)


def _precision(config: FlowMatchingConfig) -> torch.autocast:
    return torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.precision == "bfloat16")


def _to(policy: FlowPolicy, device: str) -> None:
    """Move the model. Raises ValueError for a device that this machine or this torch does not have."""
    try:
        policy.model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device '{device}' can't be used: {str(error).splitlines()[0]}") from error


def _report(progress: Progress, step: int, steps: int, mean_loss: float) -> None:
    progress.metrics(step=step, loss=mean_loss)
    progress.progress(step, steps, f"gradient steps, loss {mean_loss:.4f}")
