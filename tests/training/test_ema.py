"""The average of weights against its closed form."""

from __future__ import annotations

import pytest
import torch

from pirl_server.training.supervised.ema import Ema


def decays(steps: int, decay: float) -> list[float]:
    return [min(decay, (1 + n) / (10 + n)) for n in range(1, steps + 1)]


@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_a_scripted_sequence_has_its_closed_form(decay: float) -> None:
    """Weight of step k: (1 - d_k) times the product of all later decays; the start keeps the product of all."""
    sequence = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(sequence[0].clone())
    ema = Ema([parameter], decay)
    for value in sequence[1:]:
        parameter.data.copy_(value)
        ema.update()
    d = torch.tensor(decays(39, decay), dtype=torch.float64)
    later = torch.cat([d.flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
    share = torch.cat([later[:1], (1 - d) * later[1:]])
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(ema.average[0], (share[:, None] * sequence).sum(dim=0), rtol=0, atol=1e-12)


def test_early_steps_do_not_keep_the_initial_weights() -> None:
    """After 100 steps a fixed decay of 0.99 would still hold 37 % of them."""
    parameter = torch.nn.Parameter(torch.ones(1))
    ema = Ema([parameter], 0.99)
    parameter.data.zero_()
    for _ in range(100):
        ema.update()
    assert float(ema.average[0]) < 1e-4 < 0.99**100


def test_applying_it_puts_it_into_the_parameters_and_updates_do_not() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    ema = Ema([parameter], 0.9)
    parameter.data.fill_(3.0)
    ema.update()
    assert parameter.tolist() == [3.0, 3.0]
    ema.apply()
    assert torch.equal(parameter.detach(), ema.average[0])
    assert parameter.tolist() != [3.0, 3.0]


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_outside_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        Ema([], decay)
