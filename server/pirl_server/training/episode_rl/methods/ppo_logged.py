"""Decoupled PPO on the stored chains of exploring episodes at most two versions old (arXiv 2110.00641, 2510.25889).

The log is used once, by one step or a few: the direction is the mean gradient over all of its decisions, the length
what takes the policy to a set divergence from the base. More steps fit the log's noise. Which states were visited is
not corrected for, so old versions are left out, however well their weights look.

Shape letters: M decisions of all episodes, B of a minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pirl_server.algorithm.decoupled import decoupled_policy_loss
from pirl_server.algorithm.finite import gradient_norm
from pirl_server.algorithm.metrics import clip_fraction, effective_sample_size, kl_k3
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_rl.behaviour import BATCH, Behaviour, behaviour, frozen_prefixes, log_prob, log_probs
from pirl_server.training.episode_rl.logged_decisions import LoggedDecisions, listed, logged_decisions
from pirl_server.training.episode_rl.methods.method import Run, Trained
from pirl_server.training.episode_rl.values import (
    critic_reading,
    discounted_outcomes,
    held_out_values,
    in_stretches,
    per_task,
    stretch_advantages,
)
from pirl_server.training.supervised import flow_matching
from pirl_server.training.supervised.trainable_parts import freeze_and_adapt
from pirl_server.training.train_state import TrainParts, TrainState, TrainStateFolder

HALVINGS = 4
"""of a step that goes too far"""
ATTENTION = ".self_attn."
"""in the names of attention's parameters; vision and language are frozen"""
FIRST_LENGTH, SEARCHES, CLOSE, TINY = 0.01, 12, 0.95, 1e-12
"""of a step: where the search for its length begins, how often it is tried, which share of the limit is near enough"""


@dataclass(frozen=True)
class PpoData:
    """What an update reads."""

    behaviour: Behaviour
    advantage: Tensor
    """[M] normalised over the decisions of each task that the policy's loss learns from"""
    imitated: ChunkDataset | None
    """what the imitation term keeps the policy near; None: no such term"""
    report: str
    """what was left out of the log, and what the weights are"""


class PpoLogged:
    """See `Method`."""

    name = "decoupled PPO on logged chains"
    unlabelled = True

    def __init__(self, run: Run) -> None:
        if run.config.vlm != "frozen":
            raise ValueError(f"vlm '{run.config.vlm}': PPO on logged episodes keeps vision and language 'frozen'")
        if run.policy.guided:
            raise ValueError(
                f"guidance {run.policy.card.guidance:g}: what acted is two branches of the policy, which PPO can't"
                " follow; set guidance to 1 in the card to explore"
            )
        self._run, self._policy, self._config = run, run.policy, run.config

    def prepare(self, episodes: Sequence[Episode]) -> PpoData:
        """Densities and advantages.

        Raises MoreEpisodesNeededError for logs without a density and of one outcome, ValueError for other versions.
        """
        config = self._config
        data, why = logged_decisions(self._policy, episodes)
        if not data.acted.any():
            raise MoreEpisodesNeededError(
                f"no decision has a density that PPO can learn from: {listed(why)}; log with --explore"
            )
        if not 0 < int(data.reward.sum()) < int(data.last.sum()):
            raise MoreEpisodesNeededError(
                f"{int(data.reward.sum())} of {len(episodes)} episodes succeeded by the policy alone: PPO needs both"
                " successes and failures to compare"
            )
        drawn = behaviour(self._policy, data, config, self._run.archive)
        advantage, explained = advantages(self._policy, drawn.data, config, self._run.seed)
        weight = (drawn.proximal - drawn.log_prob).exp()[drawn.data.acted]
        truncated = int((weight > config.max_behaviour_weight).sum())
        report = _report(drawn, truncated, listed(why + drawn.why))
        self._run.progress.progress(0, config.actor_steps, report)
        self._run.progress.metrics(
            decisions=float(len(data)), taught=float(drawn.data.acted.sum()), truncated=float(truncated),
            held_out_explained_variance=explained, mismatch=drawn.mismatch, oldest=float(drawn.age.max()),
            behaviour_ess=float(effective_sample_size(weight, torch.ones_like(weight, dtype=torch.bool))),
        )  # fmt: skip
        imitated = None
        if config.imitation_weight:
            good = [episode for episode in episodes if episode.info.success]
            imitated = episode_windows(self._policy, good).windows
        return PpoData(drawn, advantage, imitated, report)

    def train(self, data: PpoData, states: TrainStateFolder | None) -> Trained:
        """Take steps: all of them, or up to the edge of the trust region."""
        update = _Update(self._run, data)
        if states is not None and (state := states.load()) is not None:
            update.restore(state)
        steps, progress = self._config.actor_steps, self._run.progress
        while update.step < steps and not update.stopped and not progress.cancelled:
            update.advance()
            progress.metrics(step=float(update.step), **update.numbers)
            progress.progress(update.step, steps, f"actor steps, KL {update.numbers['approx_kl']:.3f} {update.stopped}")
            if states is not None and states.due(update.step):
                states.save(update.state())
        said = {"log": data.report, "actor_steps": str(update.step), "stopped": update.stopped}
        actor = self._policy.noise_actor
        return Trained(self._policy.card, None if actor is None else actor.state_dict(), said)


class _Update:
    """The steps of one run: what learns, and how far it is from the base."""

    def __init__(self, run: Run, data: PpoData) -> None:
        self._policy, self._config, self._data, self._seed = run.policy, run.config, data, run.seed
        self._generator = torch.Generator().manual_seed(run.seed)
        self._parameters = _learning(run.policy, run.config)
        self._prefix_of = frozen_prefixes(run.policy, data.behaviour.data)
        self._imitated_prefix = None
        if data.imitated is not None:
            self._imitated_prefix = flow_matching.prefixes(run.policy, data.imitated, run.config, self._generator)
        self.step, self.numbers = 0, dict[str, float]()
        self.stopped = ""
        """why the last step was the last one; empty while there may be another"""

    @property
    def decisions(self) -> LoggedDecisions:
        """Of the log."""
        return self._data.behaviour.data

    def advance(self) -> None:
        """One step against the whole log's gradient. Its length is what takes the policy to this step's share of KL.

        After i of n steps, the divergence from the base is (i / n)^2 of the limit, for it grows with the square of the
        distance. A step that leaves too many ratios clipped is halved until it does not, at most `HALVINGS` times, and
        is the last.
        """
        before = [parameter.detach().clone() for parameter in self._parameters]
        loss, norm = self._gradient()
        share = (self.step + 1) / self._config.actor_steps
        length, found = self._length(before, self._config.max_kl * share**2)
        self.stopped = beyond = self._beyond(found)
        for halving in range(HALVINGS + 1):
            if not beyond:
                break
            length *= 0.5 if halving < HALVINGS else 0.0
            self._move(before, length)
            found = self._far()
            beyond = self._beyond(found)
        self.step, self.numbers = self.step + 1, {"loss": loss, "actor_grad_norm": norm, "length": length, **found}

    def _gradient(self) -> tuple[float, float]:
        """Leave the loss's direction of descent in the parameters' gradients; return the loss and its norm."""
        for parameter in self._parameters:
            parameter.grad = None
        rows, total = torch.nonzero(self.decisions.acted)[:, 0], 0.0
        for part in torch.split(rows, BATCH):
            loss = self._loss(part) * (len(part) / len(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if self._data.imitated is not None:
            self._imitation().backward()  # type: ignore[no-untyped-call]
        norm = gradient_norm((str(number), each) for number, each in enumerate(self._parameters))
        return total, float(norm)

    def _length(self, before: Sequence[Tensor], limit: float) -> tuple[float, dict[str, float]]:
        """Go as far from `before` as the divergence `limit` allows, to within a few per cent."""
        length, fits = FIRST_LENGTH, 0.0
        for _ in range(SEARCHES):
            self._move(before, length)
            used = self._far()["approx_kl"] / limit
            if used <= 1.0:
                fits = max(fits, length)
            if CLOSE <= used <= 1.0:
                break
            length *= min(max((0.5 * (CLOSE + 1.0) / used) ** 0.5, 0.1), 10.0) if 0.0 < used < math.inf else 0.1
        self._move(before, fits)
        return fits, self._far()

    @torch.no_grad()
    def _move(self, before: Sequence[Tensor], length: float) -> None:
        """Put the parameters so far from `before` in the direction of descent."""
        norm = math.sqrt(sum(float((each.grad**2).sum()) for each in self._parameters if each.grad is not None))
        for parameter, old in zip(self._parameters, before):
            parameter.copy_(old if parameter.grad is None else old - parameter.grad * (length / max(norm, TINY)))

    def state(self) -> TrainState:
        """The run between two steps."""
        return TrainState.of(self._parts(), self.step, self._seed, {"stopped": self.stopped})

    def restore(self, state: TrainState) -> None:
        """Continue from there. Raises ValueError for the state of another run."""
        state.restore(self._parts(), self._seed)
        self.step, self.stopped = state.step, state.counters["stopped"]

    def _parts(self) -> TrainParts:
        tensors: dict[str, Tensor] = {str(number): each for number, each in enumerate(self._parameters)}
        return TrainParts(tensors, {}, {"imitation": self._generator})

    def _loss(self, rows: Tensor) -> Tensor:
        config, drawn = self._config, self._data.behaviour
        loss, _ = decoupled_policy_loss(
            log_prob(self._policy, drawn.data, rows, self._prefix_of), drawn.proximal[rows], drawn.log_prob[rows],
            self._data.advantage[rows], drawn.data.acted[rows], clip_low=config.clip, clip_high=config.clip,
            max_weight=config.max_behaviour_weight,
        )  # fmt: skip
        return loss

    def _imitation(self) -> Tensor:
        """The weighted error of flow matching on a batch of successes."""
        windows, prefix = self._data.imitated, self._imitated_prefix
        assert windows is not None
        assert prefix is not None
        near = torch.randint(len(windows), (self._config.batch_size,), generator=self._generator)
        error = flow_matching.loss(self._policy, windows, near, prefix(near), self._generator)
        return (self._config.imitation_weight or 0.0) * error

    def _far(self) -> dict[str, float]:
        """How far the policy is from the base, over the whole log."""
        acted = self.decisions.acted
        log_ratio = log_probs(self._policy, self.decisions) - self._data.behaviour.proximal
        ratio, clip = log_ratio.exp(), self._config.clip
        return {
            "approx_kl": float(kl_k3(log_ratio, acted)),
            "clip_fraction": float(clip_fraction(ratio, acted, clip, clip)),
            "ess": float(effective_sample_size(ratio, acted)),
        }

    def _beyond(self, found: dict[str, float]) -> str:
        config = self._config
        if found["clip_fraction"] > config.max_clip_fraction:
            return f"{found['clip_fraction']:.2f} of the ratios were clipped, the limit is {config.max_clip_fraction:g}"
        return ""


def _learning(policy: FlowPolicy, config: EpisodesConfig) -> list[nn.Parameter]:
    """What learns, in float32. Raises ValueError when nothing would."""
    freeze_and_adapt(policy.model, config)
    if config.actor_parts == "attention":
        for name, parameter in policy.model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and ATTENTION in name)
    return [parameter for parameter in policy.model.parameters() if parameter.requires_grad]


def advantages(policy: FlowPolicy, data: LoggedDecisions, config: EpisodesConfig, seed: int) -> tuple[Tensor, float]:
    """Advantages [M] against critics that have not seen the episode, and those critics' explained variance.

    Where an episode was cut without a label, what comes after is taken to be worth as much as the last decision was.
    """
    target = discounted_outcomes(data.reward, data.last, config.gamma)
    known = ~in_stretches(data.cut, data.last)
    reading = critic_reading(policy, data, data.task, data.elapsed)
    value, explained = held_out_values(reading, target, data.episode, known, config.value_steps, seed)
    after, gamma = value / config.gamma, config.gamma
    advantage = stretch_advantages(data.reward, value, data.last, data.cut, after, gamma, config.gae_lambda)
    return per_task(advantage, data.task, data.acted), explained


def _report(drawn: Behaviour, truncated: int, left_out: str) -> str:
    """What is learnt from, in one line."""
    data, kept = drawn.data, int(drawn.data.acted.sum())
    of = [
        f"{int((data.acted & (drawn.age == age)).sum())} of {age} versions before the base"
        for age in torch.unique(drawn.age[data.acted]).tolist()
        if age
    ]
    parts = [
        f"{kept} of {len(data)} decisions teach the policy" + (f" ({', '.join(of)})" if of else ""),
        f"{truncated} weights were truncated" if truncated else "",
        "; ".join(f"weights of {version} leave {ess:.2f} of a sample each" for version, ess in drawn.ess.items()),
        f"stored log-probabilities are off by at most {drawn.mismatch:.2g}",
        f"left out: {left_out}" if left_out else "",
    ]
    return "; ".join(part for part in parts if part)
