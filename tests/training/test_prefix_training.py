"""Training that gives the first actions: what is in the loss, what the card says, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import BEST, INSTRUCTIONS, SCALE, Heard, make_toy, toy_card, toy_policy

from pirl_contract import Observation
from pirl_server.algorithm.flow import draw_time, flow_matching_loss, interpolate
from pirl_server.config.fields import parse
from pirl_server.config.training import FlowMatchingConfig, SftConfig
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset, make_windows
from pirl_server.training.supervised.flow_matching import fit, loss, prefixes
from pirl_server.training.supervised.sft import sft

ROWS = torch.arange(16)
CONFIG = FlowMatchingConfig(steps=2, batch_size=8)


def windows_for(policy: FlowPolicy) -> ChunkDataset:
    random = np.random.default_rng(0)
    state = random.normal(size=(16, 21)).astype(np.float32) * 0.1
    actions = random.uniform(-0.05, 0.05, size=(16, policy.horizon, 2)).astype(np.float32)
    return make_windows(policy, state, [INSTRUCTIONS[row % 2] for row in range(16)], actions, None)


def test_without_a_delay_the_loss_is_plain_flow_matching() -> None:
    policy = toy_policy(horizon=4)
    windows, make = windows_for(policy), torch.Generator().manual_seed(3)
    prefix = prefixes(policy, windows, CONFIG, torch.Generator())(ROWS)
    found = loss(policy, windows, ROWS, prefix, torch.Generator().manual_seed(3))
    noise = torch.randn(windows.actions.shape, generator=make)
    t = draw_time(16, make)
    velocity = policy.model.velocity(prefix, windows.features, interpolate(windows.actions, noise, t), t)
    torch.testing.assert_close(found, flow_matching_loss(velocity, windows.actions, noise).mean())
    given = loss(policy, windows, ROWS, prefix, torch.Generator().manual_seed(3), prefix_delay=3)
    assert float((given - found).detach().abs()) > 1e-3


def test_the_network_is_shown_clean_given_actions_at_time_0_and_not_asked_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, seen = toy_policy(horizon=4), []
    windows = windows_for(policy)
    prefix = prefixes(policy, windows, CONFIG, torch.Generator())(ROWS)

    def velocity(prefix: object, state: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        answer = torch.full_like(x, 0.5, requires_grad=True)
        answer.retain_grad()
        seen.append((x, t, answer))
        return answer

    monkeypatch.setattr(policy.model, "velocity", velocity)
    loss(policy, windows, ROWS, prefix, torch.Generator().manual_seed(0), 3).backward()  # type: ignore[no-untyped-call]
    ((x, t, answer),) = seen
    given = t == 0
    delays = given.sum(dim=1)
    assert set(delays.tolist()) == {0, 1, 2, 3}, "also none, and never all"
    assert torch.equal(given, torch.arange(4) < delays[:, None]), "the first ones"
    assert torch.equal(x[given], windows.actions[given])
    assert not (x[~given] == windows.actions[~given]).any()
    assert answer.grad is not None
    assert torch.equal((answer.grad != 0).all(dim=2), ~given)


def test_a_card_says_what_the_training_simulated(tmp_path: Path) -> None:
    def expert(_: Observation) -> np.ndarray:
        return BEST * SCALE

    config = replace(SftConfig(demonstrations=1, steps=2, batch_size=4), prefix_delay=2)
    sft(tmp_path / "a", toy_card(horizon=4), make_toy(length=4), expert, 4, config, 0, Heard())
    assert load_card(tmp_path / "a").prefix_delay == 2
    assert FlowPolicy.load(tmp_path / "a").continuations == ("guided", "prefix")
    again = replace(config, prefix_delay=0)
    sft(tmp_path / "b", toy_card(horizon=4), make_toy(length=4), expert, 4, again, 0, Heard(), base=tmp_path / "a")
    assert load_card(tmp_path / "b").prefix_delay == 0, "what was trained without it is not promised to know it"


def test_a_delay_of_whole_chunks_is_refused() -> None:
    policy = toy_policy(horizon=4)
    with pytest.raises(ValueError, match="prefix_delay 4 must be below the horizon of 4"):
        fit(policy, windows_for(policy), replace(CONFIG, prefix_delay=4), 0, Heard())
    with pytest.raises(ValueError, match="'prefix_delay' must be greater than or equal to 0"):
        parse(SftConfig, {"prefix_delay": -1})
