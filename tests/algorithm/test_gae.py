"""Generalised advantage estimation, against hand-computed numbers and its two closed limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.gae import gae

DISCOUNTS = {"gamma": 0.99, "lam": 0.95}


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)[:, None]


def episode(**changes: Any) -> dict[str, Any]:
    """Three decisions, the last one rewarded."""
    case = {
        "reward_TN": column(0, 0, 1),
        "value_TN": column(0.2, 0.4, 0.6),
        "last_value_N": torch.tensor([0.9], dtype=torch.float64),
        "terminated_TN": flags(0, 0, 0),
        "truncated_TN": flags(0, 0, 0),
        "final_value_TN": column(0, 0, 0),
        "valid_TN": flags(1, 1, 1),
    }
    return {**case, **DISCOUNTS, **changes}


TERMINAL = [0.7322731, 0.5702, 0.4]
BOOTSTRAPPED = [1.52039846, 1.4081855, 1.291]


def test_terminated() -> None:
    advantage, returns = gae(**episode(terminated_TN=flags(0, 0, 1)))
    assert advantage.flatten().tolist() == pytest.approx(TERMINAL, abs=1e-9)
    assert returns.flatten().tolist() == pytest.approx([0.9322731, 0.9702, 1.0], abs=1e-9)


def test_truncated_bootstraps_from_the_final_observation() -> None:
    """The row after belongs to the next episode: its value (7) must not be read."""
    truncated = episode(
        truncated_TN=flags(0, 0, 1), final_value_TN=column(5, 5, 0.9), last_value_N=torch.tensor([7.0]).double()
    )
    assert gae(**truncated)[0].flatten().tolist() == pytest.approx(BOOTSTRAPPED, abs=1e-8)


def test_a_rollout_that_goes_on_bootstraps_from_the_next_value() -> None:
    assert gae(**episode())[0].flatten().tolist() == pytest.approx(BOOTSTRAPPED, abs=1e-8)


def test_an_end_cuts_the_episode_before_it() -> None:
    """Two episodes in one column equal each of them alone."""
    twice = {
        key: torch.cat([value, value]) if key.endswith("TN") else value
        for key, value in episode(terminated_TN=flags(0, 0, 1)).items()
    }
    assert gae(**twice)[0].flatten().tolist() == pytest.approx(TERMINAL * 2, abs=1e-9)


def random_case(T: int, N: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    reward, value, final = torch.randn(3, T, N, dtype=torch.float64, generator=generator)
    dice = torch.rand(T, N, generator=generator)
    return {
        "reward_TN": reward,
        "value_TN": value,
        "last_value_N": torch.randn(N, dtype=torch.float64, generator=generator),
        "terminated_TN": dice < 0.15,
        "truncated_TN": (dice > 0.15) & (dice < 0.3),
        "final_value_TN": final,
        "valid_TN": torch.ones(T, N, dtype=torch.bool),
        **DISCOUNTS,
    }


def test_lambda_one_gamma_one_is_reward_to_go() -> None:
    advantage, returns = gae(**{**episode(terminated_TN=flags(0, 0, 1)), "gamma": 1.0, "lam": 1.0})
    torch.testing.assert_close(returns, column(1, 1, 1))
    torch.testing.assert_close(advantage, column(0.8, 0.6, 0.4))


def test_lambda_zero_is_the_td_error() -> None:
    case = random_case(12, 5)
    following = torch.cat([case["value_TN"][1:], case["last_value_N"][None]])
    following = torch.where(case["truncated_TN"], case["final_value_TN"], following)
    td = case["reward_TN"] + 0.99 * following * ~case["terminated_TN"] - case["value_TN"]
    torch.testing.assert_close(gae(**{**case, "lam": 0.0})[0], td)


def test_masked_rows_change_nothing() -> None:
    """Cutting rows out and marking them invalid give the same numbers, whatever garbage the rows hold."""
    case = random_case(9, 3)
    keep = torch.tensor([0, 1, 3, 4, 6, 7])
    cut = {key: value[keep] if key.endswith("TN") else value for key, value in case.items()}
    valid = torch.zeros(9, 3, dtype=torch.bool)
    valid[keep] = True
    garbage = {k: torch.where(valid, v, 1e6) if v.is_floating_point() else v for k, v in case.items() if "TN" in k}
    masked = gae(**{**case, **garbage, "valid_TN": valid})
    for ours, expected in zip(masked, gae(**cut)):
        torch.testing.assert_close(ours[keep], expected)
        assert float(ours[[2, 5, 8]].abs().max()) == 0.0


def test_splitting_the_batch_changes_nothing() -> None:
    case = random_case(10, 6)
    whole = gae(**case)[0]
    for part in (slice(0, 2), slice(2, 6)):
        piece = {key: value[..., part] if isinstance(value, Tensor) else value for key, value in case.items()}
        assert torch.equal(gae(**piece)[0], whole[:, part])
