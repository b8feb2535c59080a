"""Learning from logs: the better half is imitated, by a critic that has not seen the episode it judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_arm import CONTRACT, SCALE, Heard, save_toy, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import Contract
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_rl.finetune import finetune_episodes

CONFIG = EpisodesConfig(method="advantage_weighted", steps=80, batch_size=32, learning_rate=3e-3, value_steps=60)


def log(good: bool = True, count: int = 12) -> list[Episode]:
    """Half the episodes execute GOOD, half BAD; the ones that succeed are the former, or with `good` off the latter."""
    return [episode(n, (n % 2 == 0) == good, GOOD if n % 2 == 0 else BAD) for n in range(count)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("base"))


def mean_action(policy: FlowPolicy) -> float:
    """Mean of the deterministic actions, between -0.8 (as BAD) and 0.8 (as GOOD)."""
    states = np.random.default_rng(99).normal(size=(12, 21)).astype(np.float32) * 0.1
    noise = torch.randn(12, 2, 2, generator=torch.Generator().manual_seed(0))
    table = policy.prefix_table(policy.instructions)
    index, still = torch.zeros(12, dtype=torch.long), torch.full((12,), -1)
    with torch.no_grad():
        drawn = policy.draw(policy.features(states), table.select(index), noise, noise, still)
    return float(drawn.chain[:, -1].mean())


def test_successful_episodes_are_imitated_and_lineage_is_recorded(base: Path, tmp_path: Path) -> None:
    """The same executed actions with the outcomes exchanged pull the other way: it is the outcome that counts."""
    heard = Heard()
    version = finetune_episodes(base, tmp_path / "good", log(), CONFIG, 0, heard)
    finetune_episodes(base, tmp_path / "bad", log(good=False), CONFIG, 0, Heard())
    good, bad = FlowPolicy.load(tmp_path / "good"), FlowPolicy.load(tmp_path / "bad")
    assert mean_action(good) > 0.3
    assert mean_action(bad) < -0.3
    assert good.version == version
    assert good.card.lineage["parent"] == checkpoint_version(base)
    assert "advantage" in good.card.lineage["method"]
    assert heard.numbers[0]["windows"] == 36
    before = FlowPolicy.load(base).model.state_dict()
    changed = {name for name, tensor in good.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any(name.startswith(Pi0.VLM_PARTS) for name in changed)


def test_windows_are_what_was_executed_with_discounted_outcomes() -> None:
    policy = toy_policy(horizon=3)
    data = episode_windows(policy, [episode(0, True, GOOD), episode(1, None, BAD), episode(2, False, BAD)])
    assert data.episode.tolist() == [0] * 3 + [1] * 3, "the one without a label is left out"
    assert data.returns(0.5).tolist() == [0.25, 0.5, 1.0] + [0.0] * 3
    assert data.elapsed.tolist() == pytest.approx([0.0, 0.5, 1.0] * 2)
    np.testing.assert_allclose(data.windows.actions[0], np.tile(GOOD, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(data.windows.actions[2], np.tile(GOOD, (3, 1)), rtol=1e-6)
    assert data.windows.valid.tolist() == [[True, True, False]] * 6


def test_a_window_begins_where_its_observation_was_made() -> None:
    """An arm that plays by time enters a chunk at the action that is due, not at its first one."""
    policy, lockstep = toy_policy(horizon=3), episode(0, True, GOOD)
    executed = lockstep.steps.executed + np.arange(len(lockstep.steps.executed), dtype=np.float32)[:, None]
    late = np.where(np.arange(len(executed)) == lockstep.calls.step[1], 1, lockstep.steps.index)
    for index, first in ((lockstep.steps.index, lockstep.calls.step[1]), (late, lockstep.calls.step[1] - 1)):
        steps = replace(lockstep.steps, executed=executed, index=index.astype(np.int32))
        data = episode_windows(policy, [replace(lockstep, steps=steps)])
        (row,) = (data.call == 1).nonzero()[:, 0].tolist()
        assert int(data.start[row]) == first
        np.testing.assert_allclose(data.windows.actions[row][0] * SCALE, executed[first], rtol=1e-5)


def contract_with(name: str) -> Contract:
    return replace(CONTRACT, robot=name)


@pytest.mark.parametrize(
    ("logged", "words"),
    [
        ([], "no labelled episode"),
        ([episode(n, None, GOOD) for n in range(12)], "no labelled episode"),
        ([episode(n, n > 5, GOOD, played=False) for n in range(12)], "no labelled episode"),
        (log(count=4), "4 labelled episodes, at least 10 are needed"),
        ([episode(n, True, GOOD) for n in range(12)], "12 of 12 episodes succeeded"),
        ([episode(n, False, GOOD) for n in range(12)], "0 of 12 episodes succeeded"),
        ([*log(), episode(20, True, GOOD, contract=contract_with("other"))], "a different contract: robot: 'toy' here"),
        ([*log(), episode(20, True, GOOD, instruction="dance")], "instruction 'dance' is not one"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_teach_is_refused_in_words(
    base: Path, tmp_path: Path, logged: list[Episode], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        finetune_episodes(base, tmp_path / "out", logged, CONFIG, 0, Heard())
    assert not (tmp_path / "out").exists()


def test_an_episode_without_a_decision_is_left_out() -> None:
    data = episode_windows(toy_policy(), [episode(0, True, GOOD, played=False), episode(1, False, BAD)])
    assert data.episode.tolist() == [0] * 3
    assert not data.returns(0.9).any()
