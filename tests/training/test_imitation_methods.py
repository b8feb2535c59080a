"""Filtered behaviour cloning and dataset aggregation: which windows are drawn, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_log import with_steps
from toy_arm import SCALE, Heard, save_toy, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.methods.dagger import Dagger
from pirl_server.training.episode_rl.methods.filtered_bc import FilteredBc
from pirl_server.training.episode_rl.methods.method import MakeMethod, Run

HELP = np.array([0.2, -0.4], np.float32)
"""model space: what the human does"""
CONFIG = EpisodesConfig(steps=120, batch_size=32, learning_rate=3e-3)


def rescued(number: int, success: bool = True, decisions: int = 30) -> Episode:
    """The policy drives BAD for 3 s less 4 steps, then a human does HELP for four steps."""
    logged = episode(number, success, BAD, decisions)
    source, executed = logged.steps.source.copy(), logged.steps.executed.copy()
    source[-4:], executed[-4:] = int(ControlSource.HUMAN), HELP * SCALE
    state = 0.1 * np.random.default_rng(number).normal(size=logged.steps.state.shape).astype(np.float32)
    return with_steps(logged, source=source, executed=executed, state=state)


def prepared(make: MakeMethod, episodes: Sequence[Episode], config: EpisodesConfig = CONFIG) -> ChunkDataset:
    data = make(Run(toy_policy(), config, 0, Heard())).prepare(episodes)
    assert isinstance(data, ChunkDataset)
    return data


def shares(data: ChunkDataset) -> dict[str, float]:
    """How much of a batch each kind of action has."""
    share = torch.full((len(data),), 1.0 / len(data)) if data.share is None else data.share
    found = Counter[str]()
    for name, action in (("good", GOOD), ("bad", BAD), ("help", HELP)):
        mine = torch.isclose(data.actions[:, 0], torch.from_numpy(action), atol=1e-5).all(dim=1)
        found[name] = float(share[mine].sum())
    assert sum(found.values()) == pytest.approx(1.0)
    return dict(found)


def test_successes_and_humans_are_imitated_and_nothing_else() -> None:
    logged = [episode(0, True, GOOD), episode(1, False, BAD), rescued(2), rescued(3, success=False)]
    data = prepared(FilteredBc, logged)
    found = shares(data)
    assert found["bad"] == 0.0, "what failed, and what a human had to put right"
    humans, own = 2 * 4, 3
    assert found["help"] == pytest.approx(humans / (humans + own))
    assert shares(prepared(FilteredBc, [episode(0, True, GOOD), rescued(2, False)]))["help"] == pytest.approx(4 / 7)


def test_takeovers_have_their_share_whatever_their_number() -> None:
    logged = [*(episode(number, True, GOOD, 20) for number in range(6)), rescued(7), rescued(8)]
    assert shares(prepared(FilteredBc, logged))["help"] == pytest.approx(8 / 128)
    for config, share in ((CONFIG, 0.5), (replace(CONFIG, takeover_share=0.2), 0.2)):
        found = shares(prepared(Dagger, logged, config))
        assert found == pytest.approx({"good": 1.0 - share, "bad": 0.0, "help": share})


def test_old_corrections_count_as_new_ones_do() -> None:
    """Two rounds of takeovers: each episode's windows have the same share, whichever version it corrected."""
    old, new = rescued(1), rescued(2)
    new = replace(new, info=replace(new.info, policy_versions=("v2",), created="2026-03-01T00:00:00Z"))
    data = prepared(Dagger, [old, new, episode(3, True, GOOD)])
    assert data.share is not None
    drawn = data.share[data.share > 0]
    human = drawn[torch.isclose(data.actions[data.share > 0][:, 0], torch.from_numpy(HELP), atol=1e-5).all(dim=1)]
    torch.testing.assert_close(human, torch.full((8,), 0.5 / 8))


@pytest.mark.parametrize(
    ("make", "logged", "words"),
    [
        (FilteredBc, [episode(number, False, BAD) for number in range(3)], "none of 3 episodes succeeded and no human"),
        (Dagger, [episode(number, True, GOOD) for number in range(3)], "of takeover windows, and there is none"),
    ],
)
def test_a_log_without_anything_to_imitate_is_rejected(make: MakeMethod, logged: list[Episode], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prepared(make, logged)


def mean_action(policy: FlowPolicy) -> torch.Tensor:
    """Mean of deterministic actions [D] in model space."""
    states = np.random.default_rng(99).normal(size=(12, 21)).astype(np.float32) * 0.1
    noise = torch.randn(12, 2, 2, generator=torch.Generator().manual_seed(0))
    table = policy.prefix_table(policy.instructions)
    with torch.no_grad():
        drawn = policy.draw(
            policy.features(states), table.select(torch.zeros(12).long()), noise, noise, torch.full((12,), -1)
        )
    return drawn.chain[:, -1].mean(dim=(0, 1))


def test_the_policy_learns_the_mixture(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    good = [episode(number, True, GOOD, 20) for number in range(8)]
    logged = [*good, *(episode(number, False, BAD) for number in range(8, 12)), *map(rescued, range(20, 26))]
    found = {}
    for method in ("filtered_bc", "dagger"):
        finetune_episodes(base, tmp_path / method, logged, replace(CONFIG, method=method), 0, Heard())
        found[method] = mean_action(FlowPolicy.load(tmp_path / method))
    torch.testing.assert_close(found["filtered_bc"], torch.from_numpy(GOOD), atol=0.2, rtol=0)
    assert (found["dagger"] < found["filtered_bc"] - 0.1).all(), "towards what the human did"
    assert (found["dagger"] > torch.from_numpy(HELP)).all()
