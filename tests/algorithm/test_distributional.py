"""A value as a distribution over bins, against closed forms."""

from __future__ import annotations

import pytest
import torch

from pirl_server.algorithm.distributional import bin_centres, cross_entropy, expected, two_hot

CENTRES = bin_centres(201, -1.0, 0.0)


def test_bins_are_evenly_spaced_with_both_ends() -> None:
    assert (float(CENTRES[0]), float(CENTRES[-1]), len(CENTRES)) == (-1.0, 0.0, 201)
    torch.testing.assert_close(CENTRES.diff(), torch.full((200,), 0.005))


def test_a_target_is_the_mean_of_its_distribution() -> None:
    target = torch.cat([torch.linspace(-1.0, 0.0, 777), torch.tensor([-1.0, 0.0, -0.5, -0.0025])])
    found = two_hot(target, CENTRES)
    torch.testing.assert_close(found @ CENTRES, target, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(target)))
    assert int((found > 1e-6).sum(dim=1).max()) <= 2
    beyond = two_hot(torch.tensor([-7.0, 3.0]), CENTRES)
    assert beyond.argmax(dim=1).tolist() == [0, 200]


def test_the_loss_is_least_at_the_mixture_of_targets() -> None:
    """Half successes at -0.2, half failures at -1: the mean is -0.6, which no episode reached and no bin holds."""
    target = two_hot(torch.tensor([-0.2, -1.0]), CENTRES)
    learnt = torch.zeros(1, 201, requires_grad=True)
    optimizer = torch.optim.Adam([learnt], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        cross_entropy(learnt.expand(2, -1), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    logit = learnt.detach()
    assert float(expected(logit, CENTRES)) == pytest.approx(-0.6, abs=0.01)
    chance = torch.softmax(logit, dim=1)[0]
    assert float(chance[0]) == pytest.approx(0.5, abs=0.01)
    assert float(chance[160]) == pytest.approx(0.5, abs=0.01)
    assert float(chance[80]) < 0.01
    least = -(0.5 * torch.log(torch.tensor(0.5)) * 2)
    assert float(cross_entropy(logit.expand(2, -1), target)) == pytest.approx(float(least), abs=0.01)
    assert float(cross_entropy(torch.zeros(2, 201), target)) > float(least) + 1.0
