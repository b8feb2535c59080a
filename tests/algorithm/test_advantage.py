"""Advantages within a batch and within a group, and batches that have nothing to compare."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.advantage import (
    episode_weight,
    group_relative,
    mixed_groups,
    normalise,
    require_both_outcomes,
)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_normalised_over_valid_entries_only() -> None:
    advantage, valid = double(1.0, 2.0, 3.0, 1e9), torch.tensor([True, True, True, False])
    ours = normalise(advantage, valid)
    assert float(ours[:3].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(ours[:3].std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    assert float(ours[3]) == 0.0
    assert torch.equal(normalise(double(5.0, 5.0), torch.ones(2, dtype=torch.bool)), double(0.0, 0.0))


def test_group_relative_advantages() -> None:
    two = group_relative(double(1.0, 0.0, 0.0, 1.0)[None])
    assert two[0].tolist() == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6)
    one = group_relative(double(1.0, *[0.0] * 7)[None])[0]
    assert one.tolist() == pytest.approx([2.474867, *[-0.353553] * 7], abs=1e-5)
    assert group_relative(torch.ones(2, 4)).abs().max() == 0.0


def test_episodes_of_any_length_weigh_alike() -> None:
    length = torch.tensor([3, 12, 1])
    weight = episode_weight(length)
    assert (weight * length).tolist() == pytest.approx([16 / 3] * 3)
    assert float((weight * length).sum() / length.sum()) == pytest.approx(1.0)
    assert episode_weight(torch.tensor([4, 4])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(0, 8), (3, 1), (3, 0)])
def test_nothing_to_compare_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{shape[0]} groups of {shape[1]} episodes can't be compared"):
        group_relative(torch.ones(shape))


def test_a_return_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"returns of the groups: 1 of 4 values.*nan at \[1, 0\]"):
        group_relative(torch.tensor([[1.0, 0.0], [float("nan"), 1.0]]))


def test_only_mixed_groups_are_kept() -> None:
    group = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0.5, 0.5, 0.5, 0.5]]).float()
    assert mixed_groups(group).tolist() == [False, False, True, True, False]
    assert mixed_groups(group, low=0.0, high=0.5).tolist() == [False, False, True, False, False]
    assert float(group_relative(group[mixed_groups(group)]).abs().min()) > 0.4


def test_a_batch_without_a_mixed_group_is_refused_with_its_reason() -> None:
    outcome = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"none of 3 groups.*1 have a mean return above 0.9, 2 below 0.1"):
        mixed_groups(outcome)


@pytest.mark.parametrize(
    ("success", "words"),
    [
        ([1, 1, 1], "each of 3 episodes is a success.*add failures"),
        ([0, 0], "each of 2 episodes is a failure.*add successes"),
        ([], "no episodes"),
    ],
)
def test_one_outcome_is_no_comparison(success: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        require_both_outcomes(torch.tensor(success, dtype=torch.bool))


def test_two_outcomes_are_one() -> None:
    require_both_outcomes(torch.tensor([True, False]))


def test_a_batch_of_one_outcome_leaves_ppo_with_its_critic() -> None:
    """Everything failed: a critic that knew it gives advantages of 0, and normalising does not blow them up."""
    assert torch.equal(normalise(torch.zeros(8), torch.ones(8, dtype=torch.bool)), torch.zeros(8))
