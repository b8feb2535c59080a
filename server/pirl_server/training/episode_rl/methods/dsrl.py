"""A small actor over the initial noise of the frozen policy, off-policy from logged noise (DSRL, arXiv 2506.15799).

Every logged chain says which noise it started from: deterministic logs qualify, and those of other versions with the
same flow, whatever noise actor they had. Critics learn the value of a noise in a situation by temporal
differences; the actor prefers noise that all of them like, near N(0, I), where the flow was trained. The flow's
weights stay as they are: the server adds the actor.

Shape letters: M decisions, F what critics read, E critics, B minibatch, H horizon, D action dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pirl_server.algorithm.noise_space import actor_loss, kl_to_standard, td_loss, td_target
from pirl_server.episodes.schema import Episode
from pirl_server.model.critic import orthogonal
from pirl_server.model.noise_actor import NoiseActor
from pirl_server.policy.checkpoint import load_checkpoint
from pirl_server.policy.flow_policy import make_noise_actor
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_rl.logged_decisions import LoggedDecisions, logged_decisions
from pirl_server.training.episode_rl.methods.method import Run, Trained
from pirl_server.training.episode_rl.values import critic_reading, pooled
from pirl_server.training.train_state import TrainParts, TrainState, TrainStateFolder

CRITICS, BATCH, POLYAK, REPORT_EVERY = 4, 256, 0.02, 25
Parts = dict[str, nn.Module]


@dataclass(frozen=True)
class NoiseData:
    """Decisions as transitions over noise."""

    decisions: LoggedDecisions
    reading: Tensor
    """[M, F] of the critics"""
    pooled: Tensor
    """[M, W] mean output of the prefix, which the actor reads beside the features"""
    rows: Tensor
    """[N] int64 decisions to learn from; each but the ends is followed by the next row"""


class NoiseCritics(nn.Module):
    """Values of noise: a few networks apart, on what a critic reads and the noise of the real dimensions."""

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                orthogonal(width, hidden, 2.0**0.5), nn.Tanh(), orthogonal(hidden, hidden, 2.0**0.5), nn.Tanh(),
                orthogonal(hidden, 1, 0.1),
            )
            for _ in range(CRITICS)
        )  # fmt: skip

    def forward(self, reading_BF: Tensor, noise_BHD: Tensor) -> Tensor:
        """[E, B]."""
        joined = torch.cat([reading_BF, noise_BHD.flatten(1)], dim=1)
        return torch.stack([member(joined).squeeze(-1) for member in self.members])


class Dsrl:
    """See `Method`."""

    name = "noise-space actor on a frozen flow"
    unlabelled = True

    def __init__(self, run: Run) -> None:
        self._run, self._policy, self._config = run, run.policy, run.config

    def prepare(self, episodes: Sequence[Episode]) -> NoiseData:
        """Transitions. Raises MoreEpisodesNeededError for logs of one outcome, ValueError where nothing was
        executed as sampled.
        """
        data, _ = logged_decisions(self._policy, episodes)
        successes, ends = int(data.reward.sum()), int((data.last & ~data.cut).sum())
        if not 0 < successes < ends:
            raise MoreEpisodesNeededError(
                f"{successes} of {ends} episodes succeeded by the policy alone: a critic of noise needs both outcomes"
            )
        same = torch.tensor([self._same_flow(version) for version in data.versions])[data.version]
        usable = data.as_sampled & ~data.cut & same
        if not usable.any():
            raise ValueError(
                f"none of {len(data)} decisions was executed as it was sampled, by a version with the base's flow:"
                " their noise says nothing of what it leads to here"
            )
        self._run.progress.metrics(
            decisions=float(len(data)), taught=float(usable.sum()), of_other_flows=float((~same).sum())
        )
        reading = critic_reading(self._policy, data, data.task, data.elapsed)
        return NoiseData(data, reading, pooled(self._policy, data), torch.nonzero(usable)[:, 0])

    def _same_flow(self, version: str) -> bool:
        """Whether noise leads to the same actions under this version as under the base."""
        if version == self._policy.version:
            return True
        if (folder := self._run.archive(version)) is None:
            return False
        mine, other = self._policy.model.state_dict(), load_checkpoint(folder)[1]
        return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)

    def train(self, data: NoiseData, states: TrainStateFolder | None) -> Trained:
        """Learn critics alone for `value_steps`, then critics and actor for `steps`."""
        update, config, progress = _Update(self._run, data), self._config, self._run.progress
        if states is not None and (state := states.load()) is not None:
            update.restore(state)
        while update.step < config.value_steps + config.steps and not progress.cancelled:
            update.advance()
            if update.step % REPORT_EVERY == 0:
                progress.metrics(step=float(update.step), **update.numbers)
                progress.progress(update.step, config.value_steps + config.steps, "steps of critics and noise actor")
            if states is not None and states.due(update.step):
                states.save(update.state())
        return Trained(self._policy.card, update.actor.state_dict())


class _Update:
    """One run: what learns, and how far it is."""

    def __init__(self, run: Run, data: NoiseData) -> None:
        self._config, self._data, self._seed = run.config, data, run.seed
        self._real = run.policy.contract.action_dim
        self._generator = torch.Generator().manual_seed(run.seed)
        with torch.random.fork_rng():
            torch.manual_seed(run.seed)
            self.actor: NoiseActor = make_noise_actor(run.policy.card)
            self._critics = NoiseCritics(data.reading.shape[1] + run.policy.horizon * self._real)
        if run.policy.noise_actor is not None:
            self.actor.load_state_dict(run.policy.noise_actor.state_dict())
        self._targets = deepcopy(self._critics)
        self._optimizers = {
            "actor": torch.optim.Adam(self.actor.parameters(), lr=1e-3),
            "critics": torch.optim.Adam(self._critics.parameters(), lr=1e-3, weight_decay=1e-3),
        }
        self.step, self.numbers = 0, dict[str, float]()

    def advance(self) -> None:
        """One step of the critics, and after their warm-up one of the actor."""
        rows = self._data.rows
        batch = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=self._generator)]
        self.numbers = {"critic_loss": self._critic_step(batch)}
        if self.step >= self._config.value_steps:
            self.numbers |= self._actor_step(batch)
        self.step += 1

    def _critic_step(self, batch: Tensor) -> float:
        decisions, after = self._data.decisions, (batch + 1).clamp(max=len(self._data.decisions) - 1)
        with torch.no_grad():
            noise, _ = self._chosen(after)
            next_value = self._targets(self._data.reading[after], noise)
            target = td_target(decisions.reward[batch], next_value, decisions.last[batch], self._config.gamma)
        value = self._critics(self._data.reading[batch], decisions.noise[batch][..., : self._real])
        loss = td_loss(value, target)
        self._minimise(loss, "critics")
        with torch.no_grad():
            for mine, target_ in zip(self._critics.parameters(), self._targets.parameters()):
                target_.lerp_(mine, POLYAK)
        return float(loss.detach())

    def _actor_step(self, batch: Tensor) -> dict[str, float]:
        noise, kl = self._chosen(batch)
        value = self._critics(self._data.reading[batch], noise)
        self._minimise(actor_loss(value, kl, self._config.noise_kl_weight), "actor")
        with torch.no_grad():
            plain = self._critics(self._data.reading[batch], self._drawn(len(batch), noise.shape[1]))
            gained = float((value.amin(dim=0) - plain.amin(dim=0)).mean())
        return {"noise_kl": float(kl.detach().mean()), "value_gained": gained}

    def _chosen(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of the present actor [B, H, D] and its divergence [B]."""
        mean, log_std = self.actor(self._data.decisions.features[rows], self._data.pooled[rows])
        return mean + log_std.exp() * self._drawn(*mean.shape[:2]), kl_to_standard(mean, log_std)

    def _drawn(self, batch: int, horizon: int) -> Tensor:
        return torch.randn(batch, horizon, self._real, generator=self._generator)

    def _minimise(self, loss: Tensor, name: str) -> None:
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizers[name].step()

    def state(self) -> TrainState:
        """The run between two steps."""
        return TrainState.of(self._parts(), self.step, self._seed, {})

    def restore(self, state: TrainState) -> None:
        """Continue from there. Raises ValueError for the state of another run."""
        state.restore(self._parts(), self._seed)
        self.step = state.step

    def _parts(self) -> TrainParts:
        modules: Parts = {"actor": self.actor, "critics": self._critics, "targets": self._targets}
        tensors = {f"{name} {key}": each for name, part in modules.items() for key, each in part.named_parameters()}
        return TrainParts(tensors, self._optimizers, {"batches": self._generator})
