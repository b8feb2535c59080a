"""Values of logged decisions: closed forms, and critics that have not seen what they judge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_arm import toy_policy

from pirl_server.training.chunk_dataset import make_windows
from pirl_server.training.episode_rl.values import (
    critic_reading,
    discounted_outcomes,
    held_out_values,
    in_stretches,
    per_task,
    stretch_advantages,
)

LAST = torch.tensor([False, False, True, False, True])


def test_outcomes_do_not_cross_the_end_of_a_stretch() -> None:
    reward = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    assert discounted_outcomes(reward, LAST, 0.5).tolist() == [0.25, 0.5, 1.0, 0.0, 0.0]
    assert in_stretches(torch.tensor([True, False, False, False, True]), LAST).tolist() == [False] * 3 + [True] * 2


def test_advantages_of_a_stretch_are_gae() -> None:
    """The first stretch ends by itself, the second is cut before a value of 0.9: GAE's numbers worked out by hand."""
    value, after = torch.tensor([0.2, 0.4, 0.6, 0.4, 0.6]), torch.full((5,), 0.9)
    reward = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0])
    cut = torch.tensor([False, False, False, False, True])
    found = stretch_advantages(reward, value, LAST, cut, after, 0.99, 0.95)
    assert found.tolist() == pytest.approx([0.7322731, 0.5702, 0.4, 1.4081855, 1.291])
    worth_as_much = stretch_advantages(torch.zeros(5), value, LAST, cut, value / 0.99, 0.99, 0.95)
    assert float(worth_as_much[4]) == pytest.approx(0.0, abs=1e-7)


def test_each_task_is_scaled_by_its_own_counted_decisions() -> None:
    advantage, task = torch.tensor([1.0, 3.0, 100.0, 10.0, 30.0]), torch.tensor([0, 0, 0, 1, 1])
    counted = torch.tensor([True, True, False, True, True])
    scaled = per_task(advantage, task, counted)
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0, 0.0, -1.0, 1.0]), atol=1e-4, rtol=0)


def told(target: Tensor, known: Tensor | None = None) -> Tensor:
    episode = torch.arange(8).repeat_interleave(3)
    reading = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    everyone = torch.ones(24, dtype=torch.bool)
    return held_out_values(reading, target, episode, everyone if known is None else known, 30, 0)[0]


def test_a_critic_has_not_seen_the_episode_it_judges() -> None:
    """Exchange the outcome of one episode: the values of its fold stay bitwise, the other folds' values move."""
    target = (torch.arange(24) % 2).float()
    changed = target.clone()
    changed[15:18] = 1.0 - changed[15:18]
    before, after = told(target), told(changed)
    same_fold = torch.arange(8).repeat_interleave(3) % 4 == 5 % 4
    assert torch.equal(before[same_fold], after[same_fold])
    assert (before[~same_fold] != after[~same_fold]).all()
    unknown = torch.ones(24, dtype=torch.bool)
    unknown[15:18] = False
    assert torch.equal(told(target, unknown), told(changed, unknown)), "what is not known is not fitted to"


def test_a_critic_needs_other_episodes() -> None:
    with pytest.raises(ValueError, match="no episode is left to fit a critic to"):
        held_out_values(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3).long(), torch.ones(3).bool(), 5, 0)


@pytest.mark.parametrize("sees", [False, True])
def test_a_critic_reads_what_the_policy_reads_and_the_task(sees: bool) -> None:
    policy, random = toy_policy(sees=sees), torch.Generator().manual_seed(0)
    images = None
    if sees:
        draw = torch.randint(256, (2, 3, 16, 16, 3), generator=random, dtype=torch.uint8).numpy()
        images = {"base": draw[0], "wrist": draw[1]}
    state = torch.randn(3, 21, generator=random).numpy()
    windows = make_windows(policy, state, [policy.instructions[0]] * 3, torch.zeros(3, 2, 2).numpy(), images)
    task, elapsed = torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.5, 1.0])
    reading = critic_reading(policy, windows, task, elapsed)
    width = policy.card.model.vlm.width if sees else 0
    assert reading.shape == (3, windows.features.shape[1] + width + 2 + 1)
    torch.testing.assert_close(reading[:, -3:-1], torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    assert torch.equal(reading[:, -1], elapsed)
    assert critic_reading(policy, windows, torch.zeros(3).long(), elapsed).shape[1] == reading.shape[1] - 2
