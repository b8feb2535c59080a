"""Flow matching conditioned on progress, which a classifier of the order of observations sees; no label is needed.

As RECAP, with another advantage: how surely the observation some steps later is the later one of the two, by the worst
member of an ensemble. It works on logs without labels, and finds the windows in which something was achieved;
whether that was the task, only what most episodes head for says.

Shape letters: M windows, N of them with a partner, F what a member reads of one observation, E members,
B pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pirl_server.algorithm.progress import order_loss, worst_progress
from pirl_server.model.critic import orthogonal
from pirl_server.training.episode_dataset import EpisodeWindows
from pirl_server.training.episode_rl.methods.recap import Recap, looked_ahead, stretches
from pirl_server.training.episode_rl.values import critic_reading

MEMBERS = 5
"""each is fitted to the episodes of the other folds"""
PAIRS = 256


class PairClassifier(nn.Module):
    """Log-odds that the second of two observations came later; exchanged, they get the opposite."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            orthogonal(2 * width, hidden, 2.0**0.5), nn.Tanh(), orthogonal(hidden, hidden, 2.0**0.5), nn.Tanh(),
            orthogonal(hidden, 1, 0.01),
        )  # fmt: skip

    def forward(self, first_BF: Tensor, second_BF: Tensor) -> Tensor:
        """[B]."""
        there: Tensor = self.layers(torch.cat([first_BF, second_BF], dim=-1))
        back: Tensor = self.layers(torch.cat([second_BF, first_BF], dim=-1))
        return (there - back).squeeze(-1)


class Progress(Recap):
    """See `Method`."""

    name = "progress-conditioned flow matching"
    unlabelled = True

    def gain(self, data: EpisodeWindows) -> tuple[Tensor, dict[str, float]]:
        """Progress of each window [M] over `config.lookahead` steps, and how often the order is recognised.

        Raises ValueError when no two windows follow each other.
        """
        reading_MF = critic_reading(self.policy, data.windows, data.task, data.elapsed)[:, :-1]
        later = partner(data, self.config.lookahead)
        if not (later >= 0).any():
            raise ValueError("no episode has two observations in a row: there is no order to learn progress from")
        logit_EM = order_logits(reading_MF, later, data.episode, self.config.value_steps, self.seed)
        known = later >= 0
        right = (logit_EM[:, known] > 0).float().mean()
        return after_the_last(worst_progress(logit_EM), later, data), {"order_accuracy": float(right)}


def partner(data: EpisodeWindows, ahead: int) -> Tensor:
    """Window [M] int64 that each is compared with: the one looked ahead to, else its stretch's last; -1 for that."""
    found, stretch = looked_ahead(data, ahead), stretches(data)
    for each in torch.unique(stretch):
        mine = torch.nonzero(stretch == each)[:, 0]
        last = mine[data.start[mine].argmax()]
        found[mine] = torch.where(found[mine] < 0, last, found[mine])
        found[last] = -1
    return found


def after_the_last(progress_M: Tensor, later_M: Tensor, data: EpisodeWindows) -> Tensor:
    """Progress [M], where nothing comes after a window that of the one before it in its stretch, if there is one."""
    found, stretch = torch.where(later_M >= 0, progress_M, torch.zeros_like(progress_M)), stretches(data)
    for row in torch.nonzero(later_M < 0)[:, 0].tolist():
        before = torch.nonzero((stretch == stretch[row]) & (data.start < data.start[row]))[:, 0]
        if len(before):
            found[row] = progress_M[before[data.start[before].argmax()]]
    return found


def order_logits(reading_MF: Tensor, later_M: Tensor, episode_M: Tensor, steps: int, seed: int) -> Tensor:
    """What each member says of each window and its partner [E, M]; of one without a partner it says nothing."""
    generator, found = torch.Generator().manual_seed(seed), []
    for member in range(MEMBERS):
        with torch.random.fork_rng():
            torch.manual_seed(seed + member)
            classifier = PairClassifier(reading_MF.shape[1])
        known = later_M >= 0
        seen = known & (episode_M % MEMBERS != member)
        rows = torch.nonzero(seen if seen.any() else known)[:, 0]
        fit_order(classifier, reading_MF, rows, later_M, steps, generator)
        with torch.no_grad():
            found.append(classifier(reading_MF, reading_MF[later_M.clamp(min=0)]))
    return torch.stack(found)


def fit_order(
    classifier: PairClassifier,
    reading_MF: Tensor,
    rows: Tensor,
    later_M: Tensor,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Fit to pairs of `rows` [N] with their partners, half of them exchanged, in place. Readings are [M, F]."""
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(steps):
        chosen = rows[torch.randint(len(rows), (PAIRS,), generator=generator)]
        forward = torch.rand(PAIRS, generator=generator) < 0.5
        first = torch.where(forward, chosen, later_M[chosen])
        second = torch.where(forward, later_M[chosen], chosen)
        loss = order_loss(classifier(reading_MF[first], reading_MF[second]), forward)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
