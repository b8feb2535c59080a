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
from functools import partial

import torch
from torch import Tensor

from pirl_server.algorithm.awr import weighted_flow_matching_loss
from pirl_server.algorithm.flow import draw_time, flow_matching_loss, interpolate
from pirl_server.algorithm.rtc import draw_delays, given_tokens, over_the_rest, start_given, token_times
from pirl_server.config.training import FlowMatchingConfig
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.prefix_cache import View, cache_rows, encode_rows
from pirl_server.training.progress import Progress
from pirl_server.training.supervised.augment import augment
from pirl_server.training.supervised.auxiliary_state_loss import AuxiliaryStateLoss
from pirl_server.training.supervised.ema import Ema
from pirl_server.training.supervised.trainable_parts import freeze_and_adapt

REPORT_EVERY = 25
LOWEST = 0.05
"""share of the learning rate that the cosine ends at"""

PrefixOf = Callable[[Tensor], Prefix]
"""rows [B] of the windows -> their prefixes"""


def loss(
    policy: FlowPolicy,
    windows: ChunkDataset,
    rows: Tensor,
    prefix: Prefix,
    generator: torch.Generator,
    prefix_delay: int = 0,
) -> Tensor:
    """Weighted mean error of the velocity on the given rows at random times, in float32.

    `rows` [B] int64; a scalar with a gradient.
    """
    device, real = prefix.mask.device, policy.contract.action_dim
    action = windows.actions[rows]
    noise = torch.randn(action.shape, generator=generator)
    t = draw_time(len(rows), generator)
    x = interpolate(action, noise, t)
    if prefix_delay:
        given = given_tokens(policy.horizon, draw_delays(len(rows), prefix_delay, generator))
        t, x = token_times(t, given), start_given(x, action, given)
    velocity = policy.model.velocity(prefix, windows.features[rows].to(device), x.to(device), t.to(device)).float()
    error = flow_matching_loss(velocity[..., :real], *(part[..., :real].to(device) for part in (action, noise)))
    if prefix_delay:
        error = over_the_rest(error, given.to(device))
    return weighted_flow_matching_loss(error, windows.weight[rows].to(device))


def fit(policy: FlowPolicy, windows: ChunkDataset, config: FlowMatchingConfig, seed: int, progress: Progress) -> float:
    """Train in place, return the mean loss of the last steps. With adapters, `lora.merged_state_dict` is the result.

    Raises ValueError when the config leaves nothing to train, gives whole chunks or names a device that is not there.
    """
    if config.prefix_delay >= policy.horizon:
        raise ValueError(f"prefix_delay {config.prefix_delay} must be below the horizon of {policy.horizon} actions")
    generator = torch.Generator().manual_seed(seed)
    parameters = freeze_and_adapt(policy.model, config)
    _to(policy, config.device)
    grounding = (
        None
        if windows.aux_target is None
        else AuxiliaryStateLoss(policy.card.model, windows.aux_target).to(config.device)
    )
    if grounding is not None:
        parameters = [*parameters, *grounding.parameters()]
    prefix_of = prefixes(policy, windows, config, generator)
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_share, config))
    ema = Ema(parameters, config.ema_decay) if config.ema_decay else None
    recent: list[float] = []
    for step in range(1, config.steps + 1):
        rows = torch.randint(len(windows), (config.batch_size,), generator=generator)
        with _precision(config):
            prefix = prefix_of(rows)
            told = 0.0 if grounding is None else grounding.loss(prefix, rows)
            if config.draws > 1:
                draws = torch.arange(len(rows)).repeat(config.draws)
                rows, prefix = rows[draws], prefix.select(draws.to(config.device))
            value = loss(policy, windows, rows, prefix, generator, config.prefix_delay)
        optimizer.zero_grad(set_to_none=True)
        (value + told).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if ema is not None:
            ema.update()
        recent = [*recent, float(value.detach())][-REPORT_EVERY:]
        if step % REPORT_EVERY == 0 or step == config.steps:
            _report(progress, step, config.steps, sum(recent) / len(recent))
            if progress.cancelled:
                break
    if ema is not None:
        ema.apply()
    policy.model.to("cpu")
    return sum(recent) / len(recent)


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
        return lambda rows: kept.select(windows.prompt[rows].to(kept.mask.device))
    view = _view(policy, config, generator)

    def encode(rows: Tensor) -> Prefix:
        pictures = None if windows.images is None else {n: each[rows.numpy()] for n, each in windows.images.items()}
        with torch.set_grad_enabled(not frozen):
            return encode_rows(policy, windows.tokens, windows.token_mask, windows.prompt[rows], pictures, view)

    return encode


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
