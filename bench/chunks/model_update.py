"""Decisions per second of a PPO update whose vision-language half is frozen: prefixes cached, or encoded anew.

All forms take the same decisions, minibatches and gradient steps, so the losses must agree. `encoded once` pays for
its encoding within the update; `kept from the rollout` finds the prefixes that sampling the chunks has left behind.

Shape letters: B decisions, C cameras, H horizon, D action dim.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from pirl_server.algorithm import flow_sde
from pirl_server.algorithm.density import sum_executed
from pirl_server.algorithm.hybrid_sampler import transition_log_prob
from pirl_server.algorithm.ppo import policy_loss
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.presets import PRESETS
from pirl_server.model.prefix import Prefix

CAMERAS, TEXT_TOKENS, STEPS, EPOCHS, MINIBATCH = 2, 20, 4, 4, 16
TRANSITION = partial(flow_sde.transition, noise_level=0.5)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What an update needs to know of B decisions."""

    images: Tensor
    present: Tensor
    tokens: Tensor
    token_mask: Tensor
    state: Tensor
    x: Tensor
    x_next: Tensor
    index: Tensor
    old_log_prob: Tensor
    advantage: Tensor

    def select(self, rows: Tensor) -> Rollout:
        return Rollout(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def __len__(self) -> int:
        return len(self.index)


def draw_rollout(model: Pi0, decisions: int) -> Rollout:
    """Random observations and transitions."""
    config, draw = model.config, torch.Generator().manual_seed(1)
    assert config.vision is not None
    B, px, chunk = decisions, config.vision.image_px, (decisions, config.horizon, config.action_dim)
    x = torch.randn(chunk, generator=draw)
    return Rollout(
        images=2.0 * torch.rand(B, CAMERAS, 3, px, px, generator=draw) - 1.0,
        present=torch.ones(B, CAMERAS, dtype=torch.bool),
        tokens=torch.randint(1, 256, (B, TEXT_TOKENS), generator=draw),
        token_mask=torch.ones(B, TEXT_TOKENS, dtype=torch.bool),
        state=torch.randn(B, config.state_dim, generator=draw),
        x=x,
        x_next=x + 0.3 * torch.randn(chunk, generator=draw),
        index=torch.randint(STEPS, (B,), generator=draw),
        old_log_prob=torch.zeros(B),
        advantage=torch.randn(B, generator=draw),
    )


@torch.no_grad()
def encode(model: Pi0, rollout: Rollout) -> Prefix:
    """The prefixes of a few decisions: frozen, so without a graph."""
    return model.encode_prefix(rollout.images, rollout.present, rollout.tokens, rollout.token_mask)


def log_prob(model: Pi0, prefix: Prefix, rollout: Rollout) -> Tensor:
    """Log-density [B] of the stored transitions."""

    def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
        return model.velocity(prefix, rollout.state, x_BHD, t_B)

    element = transition_log_prob(velocity, rollout.x, rollout.x_next, rollout.index, STEPS, TRANSITION)
    played = torch.full_like(rollout.index, model.config.horizon)
    return sum_executed(element, played, model.config.action_dim)


def update(model: Pi0, rollout: Rollout, prefix_of: Callable[[Tensor], Prefix]) -> float:
    """Epochs of minibatches on the expert; the last loss."""
    optimizer = torch.optim.AdamW(model.expert_parameters(), lr=1e-5)
    shuffle, loss = torch.Generator().manual_seed(2), torch.zeros(())
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(rollout), generator=shuffle), MINIBATCH):
            batch = rollout.select(rows)
            density = log_prob(model, prefix_of(rows), batch)
            loss, _ = policy_loss(density, batch.old_log_prob, batch.advantage, torch.ones(len(rows)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return float(loss.detach())


def forms(model: Pi0, rollout: Rollout) -> dict[str, Callable[[], float]]:
    """The update in its three forms. Weights are restored by the caller."""
    kept = encode(model, rollout)

    def encoded_once() -> float:
        prefix = encode(model, rollout)
        return update(model, rollout, prefix.select)

    return {
        "encoded per minibatch": lambda: update(model, rollout, lambda rows: encode(model, rollout.select(rows))),
        "encoded once": encoded_once,
        "kept from the rollout": lambda: update(model, rollout, kept.select),
    }


def throughput(preset: str, *, decisions: int, repeats: int) -> dict[str, float]:
    """Figures of one preset, medians of interleaved repeats."""
    torch.manual_seed(0)
    model = Pi0(PRESETS[preset]())
    rollout = draw_rollout(model, decisions)
    with torch.no_grad():
        rollout = dataclasses.replace(rollout, old_log_prob=log_prob(model, encode(model, rollout), rollout))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    seconds: dict[str, list[tuple[float, float]]] = {}
    losses: dict[str, float] = {}
    for turn in range(1 + repeats):
        for name, form in forms(model, rollout).items():
            model.load_state_dict(start)
            wall, cpu = time.perf_counter(), time.process_time()
            losses[name] = form()
            if turn > 0:  # the first pays for what libraries set up once
                seconds.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - cpu))
    assert max(losses.values()) - min(losses.values()) < 1e-4, losses
    return rates(preset, seconds, decisions * EPOCHS)


def rates(preset: str, seconds: dict[str, list[tuple[float, float]]], passes: int) -> dict[str, float]:
    """Decisions passed per second of wall time, and each form's gain over encoding anew, by wall and by CPU time."""
    figures: dict[str, float] = {}
    anew = seconds["encoded per minibatch"]
    for name, pairs in seconds.items():
        figures[f"update {preset}, {name}: decisions/s"] = round(passes / median(wall for wall, _ in pairs), 1)
        for i, ending in enumerate(("speed-up", "speed-up, CPU time") if pairs is not anew else ()):
            gain = median(pair[i] for pair in anew) / median(pair[i] for pair in pairs)
            figures[f"update {preset}, {name}: {ending}"] = round(gain, 2)
    return figures


def updates(*, quick: bool) -> dict[str, float]:
    """Figures by name."""
    figures: dict[str, float] = {}
    for preset in ("tiny",) if quick else ("tiny", "small"):
        figures |= throughput(preset, decisions=32 if quick else 64, repeats=2 if quick else 5)
    return figures
