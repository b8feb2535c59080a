"""Chunk level, step level and the inner MDP: rows for GAE, and that the levels agree where they must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.gae import gae
from pirl_server.algorithm.levels import at_last_step, chunk_reward, executed_steps, from_rows, to_rows

T, N, S = 5, 3, 4


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def random_decisions() -> dict[str, Tensor]:
    """Decisions of which some ended early, two of them by the task, one by a time limit."""
    generator = torch.Generator().manual_seed(0)
    executed = torch.full((T, N), S)
    executed[1, 0], executed[2, 2], executed[3, 1] = 2, 1, 3
    terminated, truncated = torch.zeros(2, T, N, dtype=torch.bool)
    terminated[1, 0] = terminated[2, 2] = truncated[3, 1] = True
    step_reward, step_value = torch.randn(2, T, N, S, dtype=torch.float64, generator=generator)
    return {
        "executed": executed, "terminated": terminated, "truncated": truncated,
        "reward": step_reward, "value": step_value,
        "final": torch.randn(T, N, dtype=torch.float64, generator=generator),
        "last": torch.randn(N, dtype=torch.float64, generator=generator),
    }  # fmt: skip


def step_level(case: dict[str, Tensor], gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE over control steps, back as [T, N, S]."""
    ends = {name: at_last_step(case[name], case["executed"], S) for name in ("terminated", "truncated", "final")}
    advantage, returns = gae(
        to_rows(case["reward"]), to_rows(case["value"]), case["last"], to_rows(ends["terminated"]),
        to_rows(ends["truncated"]), to_rows(ends["final"]), to_rows(executed_steps(case["executed"], S)),
        gamma=gamma, lam=lam,
    )  # fmt: skip
    return from_rows(advantage, S), from_rows(returns, S)


def chunk_level(case: dict[str, Tensor], gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """GAE over decisions, whose value is that of their first step."""
    return gae(
        chunk_reward(case["reward"], case["executed"]), case["value"][..., 0], case["last"], case["terminated"],
        case["truncated"], case["final"], torch.ones(T, N, dtype=torch.bool), gamma=gamma, lam=lam,
    )  # fmt: skip


def test_rows_are_in_time_order_and_come_back() -> None:
    x = torch.arange(T * N * S).view(T, N, S)
    assert to_rows(x)[:, 1].tolist() == [int(x[t, 1, s]) for t in range(T) for s in range(S)]
    assert torch.equal(from_rows(to_rows(x), S), x)


def test_what_was_not_played_pays_nothing() -> None:
    reward = torch.tensor([[[1.0, 2.0, 4.0, float("nan")]]])
    assert chunk_reward(reward, torch.tensor([[3]])).tolist() == [[7.0]]
    assert chunk_reward(reward, torch.tensor([[0]])).tolist() == [[0.0]]


def test_an_end_is_on_the_last_step_that_was_played() -> None:
    done = torch.tensor([[True, False]])
    flags = at_last_step(done, torch.tensor([[2, 4]]), 4)
    assert flags.tolist() == [[[False, True, False, False], [False] * 4]]


def test_both_levels_agree_on_undiscounted_returns() -> None:
    """gamma = lambda = 1: the return of a decision is that of its first step, whatever the values in between."""
    case = random_decisions()
    _, by_step = step_level(case, 1.0, 1.0)
    _, by_chunk = chunk_level(case, 1.0, 1.0)
    torch.testing.assert_close(by_step[..., 0], by_chunk)
    discounted = step_level(case, 0.9, 1.0)[1][..., 0] - chunk_level(case, 0.9, 1.0)[1]
    assert float(discounted.abs().max()) > 0.1  # gamma is per row: the levels are two different discounts


def test_steps_that_were_not_played_change_nothing() -> None:
    case = random_decisions()
    played = executed_steps(case["executed"], S)
    garbage: dict[str, Any] = {name: torch.where(played, case[name], 1e6) for name in ("reward", "value")}
    for ours, expected in zip(step_level({**case, **garbage}, 0.99, 0.95), step_level(case, 0.99, 0.95)):
        assert torch.equal(ours, expected)
        assert float(ours[~played].abs().max()) == 0.0


def test_one_step_per_decision_is_the_chunk_level() -> None:
    case = {name: value[..., :1] if value.dim() == 3 else value for name, value in random_decisions().items()}
    ones = torch.ones_like(case["executed"])
    advantage, _ = gae(
        to_rows(case["reward"]), to_rows(case["value"]), case["last"],
        to_rows(at_last_step(case["terminated"], ones, 1)), to_rows(at_last_step(case["truncated"], ones, 1)),
        to_rows(at_last_step(case["final"], ones, 1)), torch.ones(T, N, dtype=torch.bool), gamma=0.99, lam=0.95,
    )  # fmt: skip
    assert torch.equal(advantage, chunk_level({**case, "executed": ones}, 0.99, 0.95)[0])


def test_the_step_level_by_hand() -> None:
    """One decision of three steps, rewarded at its end: the numbers of three decisions."""
    case = {
        "executed": torch.tensor([[3]]), "terminated": torch.tensor([[True]]), "truncated": torch.tensor([[False]]),
        "reward": rows(0, 0, 1).T[None], "value": rows(0.2, 0.4, 0.6).T[None],
        "final": torch.zeros(1, 1).double(), "last": torch.zeros(1).double(),
    }  # fmt: skip
    ends = {name: to_rows(at_last_step(case[name], case["executed"], 3)) for name in ("terminated", "truncated")}
    advantage, _ = gae(
        to_rows(case["reward"]), to_rows(case["value"]), case["last"], ends["terminated"], ends["truncated"],
        torch.zeros(3, 1).double(), torch.ones(3, 1, dtype=torch.bool), gamma=0.99, lam=0.95,
    )  # fmt: skip
    assert advantage.flatten().tolist() == pytest.approx([0.7322731, 0.5702, 0.4], abs=1e-9)


def test_the_inner_mdp_is_paid_after_the_chain() -> None:
    """K denoise steps per decision, gamma 1: the reward comes with the last, each step has the decision's return."""
    generator = torch.Generator().manual_seed(1)
    reward, value = torch.randn(T, N, generator=generator), torch.randn(T, N, S, generator=generator)
    done = torch.rand(T, N, generator=generator) < 0.3
    complete, never = torch.full((T, N), S), torch.zeros(T * S, N, dtype=torch.bool)
    inner = at_last_step(reward, complete, S)
    assert torch.equal(inner[..., -1], reward)
    assert float(inner[..., :-1].abs().max()) == 0.0
    last = torch.randn(N, generator=generator)
    _, by_denoise_step = gae(
        to_rows(inner), to_rows(value), last, to_rows(at_last_step(done, complete, S)), never,
        torch.zeros(T * S, N), ~never, gamma=1.0, lam=1.0,
    )  # fmt: skip
    no_cut = torch.zeros(T, N, dtype=torch.bool)
    _, by_decision = gae(reward, value[..., 0], last, done, no_cut, torch.zeros(T, N), ~no_cut, gamma=1.0, lam=1.0)
    torch.testing.assert_close(from_rows(by_denoise_step, S), by_decision[..., None].expand(T, N, S))
