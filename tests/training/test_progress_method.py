"""Progress by the order of observations: what a member learns, the worst of them, and which windows it prefers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_arm import Heard, save_toy, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_server.algorithm.progress import order_loss, worst_progress
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_rl.methods.method import Run
from pirl_server.training.episode_rl.methods.progress import (
    MEMBERS,
    PairClassifier,
    Progress,
    after_the_last,
    fit_order,
    order_logits,
    partner,
)

CONFIG = EpisodesConfig(method="progress", value_steps=150, positive_share=0.5, lookahead=4)


def walk(drift: float, episodes: int = 200, steps: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian walks of variance 1 per step: positions [M, 1], partners four steps later [M], episodes [M]."""
    generator = torch.Generator().manual_seed(0)
    start = 4.0 * torch.randn(episodes, 1, generator=generator)
    position = start + (drift + torch.randn(episodes, steps, generator=generator)).cumsum(dim=1)
    later = torch.arange(episodes * steps).reshape(episodes, steps) + 4
    later[:, -4:] = -1
    return position.reshape(-1, 1), later.flatten(), torch.arange(episodes).repeat_interleave(steps)


@pytest.mark.parametrize("drift", [0.5, 0.0, -0.5])
def test_a_member_learns_the_log_likelihood_ratio_of_the_two_orders(drift: float) -> None:
    """2 m (y - x) / s^2, whatever the gap; without a drift there is nothing to tell, and it says so."""
    position, later, _ = walk(drift)
    torch.manual_seed(0)
    classifier = PairClassifier(1)
    rows = torch.nonzero(later >= 0)[:, 0]
    fit_order(classifier, position / 4.0, rows, later, 800, torch.Generator().manual_seed(1))
    x = torch.linspace(-4.0, 4.0, 9)[:, None]
    with torch.no_grad():
        for gap in (-2.0, 0.0, 2.0):
            found = classifier(x / 4.0, (x + gap) / 4.0)
            torch.testing.assert_close(found.mean(), torch.tensor(2.0 * drift * gap), atol=0.35, rtol=0)


def test_the_loss_is_least_at_the_log_odds_and_exchanged_pairs_have_the_opposite() -> None:
    forward = torch.tensor([True, True, True, False])
    odds = torch.log(torch.tensor(3.0))
    best = order_loss(odds.expand(4), forward)
    assert all(float(order_loss((odds + step).expand(4), forward)) > float(best) for step in (-0.1, 0.1))
    torch.manual_seed(0)
    classifier, (first, second) = PairClassifier(3), torch.randn(2, 7, 3)
    torch.testing.assert_close(classifier(first, second), -classifier(second, first))


def test_progress_is_that_of_the_worst_member() -> None:
    logit = torch.tensor([[2.0, -1.0, 0.0], [1.0, 3.0, 0.0]])
    chance = torch.sigmoid(logit)
    torch.testing.assert_close(worst_progress(logit), (2.0 * chance - 1.0).min(dim=0).values)
    assert (worst_progress(logit) <= worst_progress(logit[:1])).all()


def log(labelled: bool) -> list[Episode]:
    """Half the episodes move their state on, whatever they execute there; in the others it shakes."""
    found = []
    for number in range(20):
        moves = number % 2 == 0
        logged = episode(number, (moves if labelled else None), GOOD if moves else BAD, 6)
        random = np.random.default_rng(number)
        along = 0.05 * np.arange(13) if moves else 0.05 * random.normal(size=13)
        state = np.concatenate([along[:, None], 0.001 * random.normal(size=(13, 20))], axis=1).astype(np.float32)
        state = np.tile(state[:, :1], (1, 21)) + state
        calls = replace(logged.calls, state=state[:-1:2])
        found.append(replace(logged, calls=calls, steps=replace(logged.steps, state=state[1:])))
    return found


@pytest.mark.parametrize("labelled", [True, False])
def test_windows_that_move_on_are_preferred_with_labels_and_without(labelled: bool) -> None:
    heard = Heard()
    windows = Progress(Run(toy_policy(), CONFIG, 0, heard)).prepare(log(labelled))
    moved = torch.isclose(windows.actions[:, 0], torch.from_numpy(GOOD), atol=1e-5).all(dim=1)
    assert float(windows.good[moved].float().mean()) > float(windows.good[~moved].float().mean()) + 0.4
    assert heard.numbers[0]["order_accuracy"] > 0.65


def test_partners_are_in_the_same_stretch_and_the_last_has_none() -> None:
    data = episode_windows(toy_policy(), [episode(0, True, GOOD, 4), episode(1, False, BAD, 4)])
    later = partner(data, 6)
    assert later.tolist() == [3, 3, 3, -1, 7, 7, 7, -1]
    progress = torch.tensor([0.1, 0.2, 0.3, 9.0, 0.5, 0.6, 0.7, 9.0])
    expected = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.7])
    torch.testing.assert_close(after_the_last(progress, later, data), expected)


def test_each_member_leaves_a_fold_of_episodes_out() -> None:
    """Turn one episode round: the member that leaves its fold out says bitwise the same, the others do not."""
    position, later, number = walk(0.5, episodes=10, steps=8)
    turned = position.clone()
    turned[number == 3] = position[number == 3].flip(0)
    before, after = (order_logits(each, later, number, 30, 0) for each in (position, turned))
    elsewhere = number % MEMBERS != 3
    assert torch.equal(before[3][elsewhere], after[3][elsewhere])
    for member in {0, 1, 2, 4}:
        assert not torch.equal(before[member][elsewhere], after[member][elsewhere])


def test_an_order_needs_two_observations(tmp_path: Path) -> None:
    save_toy(tmp_path / "base")
    short = []
    for number in range(3):
        logged = episode(number, True, GOOD, 1)
        columns = {name: value[:1] for name, value in vars(logged.steps).items()}
        short.append(replace(logged, steps=replace(logged.steps, **columns)))
    with pytest.raises(ValueError, match="no episode has two observations in a row"):
        Progress(Run(toy_policy(), CONFIG, 0, Heard())).prepare(short)
