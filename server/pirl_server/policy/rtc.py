"""Real-time chunking in the contract's units: previous actions to model space, denoised, checked.

Two passes at most, one per method. What comes back begins with the very numbers that were asked with: through model
space and back they would be rounded, and a robot that compares them must find no difference.

Shape letters: N rows, H horizon, D the contract's actions, A the model's, S state, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pirl_contract import Contract, Observation, PreviousChunk
from pirl_server.algorithm import rtc
from pirl_server.algorithm.flow import Transition, Velocity
from pirl_server.algorithm.hybrid_sampler import hybrid_sample
from pirl_server.model.flow_model import ChunkDenoiser, FlowModel
from pirl_server.model.prefix import Prefix
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processor import Array
from pirl_server.policy.served_policy import PolicyRequest, PolicySample


class RtcPolicy(Protocol):
    """What is needed of the policy whose chunks are continued: see `FlowPolicy`."""

    @property
    def card(self) -> ModelCard:
        """Its model card."""

    @property
    def model(self) -> FlowModel:
        """Its network."""

    @property
    def version(self) -> str:
        """Content hash of the checkpoint."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    @property
    def contract(self) -> Contract:
        """The robot it was trained for."""

    @property
    def horizon(self) -> int:
        """H."""

    @property
    def continuations(self) -> tuple[str, ...]:
        """Methods that it can continue a chunk with."""

    @property
    def transition(self) -> Transition:
        """The exploration's denoise step."""

    def padded(self, asks: Sequence[PolicyRequest]) -> Sequence[PolicyRequest]:
        """The rows of a pass for these."""

    def noise(self, asks: Sequence[PolicyRequest]) -> tuple[Tensor, Tensor, Tensor]:
        """The chain's first latent and the noise of its stochastic step [N, H, A], and which step that is [N]."""

    def features(self, state_NS: Array) -> Array:
        """State vectors in SI units -> model input. Returns [N, F]."""

    def prefixes(self, observations: Sequence[Observation]) -> Prefix:
        """Prefix rows of observations, as `denoiser` takes them."""

    def denoiser(self, prefix: Prefix, state_NF: Tensor, given_NH: Tensor | None = None) -> ChunkDenoiser:
        """Velocity for inference; actions that are `given` have time 0 throughout."""

    def steer(self, noise_NHA: Tensor, features_NF: Tensor, prefix: Prefix) -> Tensor:
        """The noise that chunks start from [N, H, A]."""

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """Contract units -> model-space actions. Returns [N, H, A]."""

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """Model-space actions -> contract units. Returns [N, H, D]."""


class _Known(NamedTuple):
    """What is known of N chunks before they are drawn, where the model is."""

    target_NHA: Tensor
    """model space; beyond `count` the last known action, which is not read"""
    delay_N: Tensor
    count_N: Tensor


def sample_continued(policy: RtcPolicy, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
    """One chunk per ask, each with a continuation and an observation that fits; see `ServedPolicy.sample_batch`.

    The prefix method reaches as far as the policy was trained for; where the delay is longer, guidance takes over: a
    moving arm waits for an answer, and the sample says how much of it was altered.
    """
    answers: list[PolicySample | ValueError | None] = [_fault(policy, ask) for ask in asks]
    for given in (False, True):
        rows = [i for i, ask in enumerate(asks) if answers[i] is None and _conditioned(policy, ask) == given]
        for i, sample in zip(rows, _draw(policy, [asks[i] for i in rows], given) if rows else ()):
            answers[i] = sample
    return [answer for answer in answers if answer is not None]


def _asked(ask: PolicyRequest) -> PreviousChunk:
    assert ask.continuation is not None
    return ask.continuation


def _conditioned(policy: RtcPolicy, ask: PolicyRequest) -> bool:
    return _asked(ask).method == "prefix" and _asked(ask).inference_delay <= policy.card.prefix_delay


def _fault(policy: RtcPolicy, ask: PolicyRequest) -> ValueError | None:
    asked, (n, width) = _asked(ask), _asked(ask).actions.shape
    if asked.method not in policy.continuations:
        known = ", ".join(policy.continuations)
        return ValueError(f"policy {policy.version} was not trained for continuation '{asked.method}', use: {known}")
    if n > policy.horizon or width != policy.contract.action_dim:
        most, wanted = policy.horizon, policy.contract.action_dim
        return ValueError(f"continuation has {n} actions of {width}: at most {most} of {wanted} are continued")
    if asked.inference_delay >= policy.horizon:
        return ValueError(
            f"inference_delay {asked.inference_delay} must be below the horizon, {policy.horizon}: no action is new"
        )
    if not np.isfinite(asked.actions).all():
        return ValueError("continuation: an action is not finite")
    return None


@torch.inference_mode(False)  # guidance needs gradients, which nothing made in inference mode lets pass
@torch.no_grad()
def _draw(policy: RtcPolicy, asks: Sequence[PolicyRequest], conditioned: bool) -> list[PolicySample]:
    card, device = policy.card, policy.device
    rows = policy.padded(asks)
    observations = [ask.observation for ask in rows]
    state_NS = np.stack([each.state for each in observations])
    known = _know(policy, rows, state_NS)
    start, sde, index = (part.to(device) for part in policy.noise(rows))
    features, prefix = torch.from_numpy(policy.features(state_NS)).to(device), policy.prefixes(observations)
    given = rtc.given_tokens(policy.horizon, known.delay_N) if conditioned else None
    start, denoiser = policy.steer(start, features, prefix), policy.denoiser(prefix, features, given)
    velocity: Velocity = denoiser
    transition: Transition = policy.transition
    if given is None:
        velocity = rtc.guided(denoiser.differentiable, known.target_NHA, _weight(policy, known))
    else:
        start = rtc.start_given(start, known.target_NHA, given)
        velocity, transition = rtc.resting(denoiser, given), rtc.resting_transition(transition, given)
    draw = hybrid_sample(velocity, start, sde, index, card.denoise_steps, transition)
    chain_NKHA, log_prob_NHA, std_NHA = (part.cpu() for part in draw)
    actions_NHD = policy.to_actions(chain_NKHA[:, -1], state_NS)
    return [
        PolicySample(
            actions=_joined(_asked(ask), actions_NHD[row]),
            chain=chain_NKHA[row].clone().numpy(),
            sde_index=int(index[row]),
            log_prob=log_prob_NHA[row].clone().numpy(),
            std=float(std_NHA[row, -1, 0]),  # the last action is never a given one
            noise_level=card.noise_level if ask.explore else 0.0,
            value=float("nan"),
            seed=ask.seed,
            continued=_asked(ask).inference_delay,
            altered=_altered(_asked(ask), policy.horizon, conditioned),
        )
        for row, ask in enumerate(asks)
    ]


def _know(policy: RtcPolicy, rows: Sequence[PolicyRequest], state_NS: Array) -> _Known:
    asked, device = [_asked(ask) for ask in rows], policy.device
    padded_NHD = np.zeros((len(rows), policy.horizon, policy.contract.action_dim), np.float32)
    for row, each in zip(padded_NHD, asked):
        if len(each.actions):
            row[:] = each.actions[np.minimum(np.arange(policy.horizon), len(each.actions) - 1)]
    return _Known(
        policy.to_model(padded_NHD, state_NS).to(device),
        torch.tensor([each.inference_delay for each in asked], device=device),
        torch.tensor([len(each.actions) for each in asked], device=device),
    )


def _weight(policy: RtcPolicy, known: _Known) -> Tensor:
    """Nothing is known of the dimensions that pad the action."""
    weight_NH = rtc.overlap_weights(policy.horizon, known.delay_N, known.count_N)
    real_A = torch.arange(known.target_NHA.shape[-1], device=policy.device) < policy.contract.action_dim
    return weight_NH[..., None] * real_A


def _joined(asked: PreviousChunk, drawn_HD: Array) -> Array:
    return np.concatenate([asked.actions[: asked.inference_delay], drawn_HD[asked.inference_delay :]])


def _altered(asked: PreviousChunk, horizon: int, conditioned: bool) -> int:
    if conditioned:
        return asked.inference_delay
    return horizon if len(asked.actions) else 0
