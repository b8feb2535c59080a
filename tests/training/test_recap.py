"""Advantage-conditioned flow matching: values, what is looked ahead to, marks, and what is learnt of both halves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explored_log import with_steps
from toy_arm import Heard, save_toy, spoken_policy, toy_observation, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.condition import WORSE, conditioned
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.episode_rl.methods.method import Run
from pirl_server.training.episode_rl.methods.recap import (
    Recap,
    advantages,
    looked_ahead,
    marked_windows,
    marks,
    normalised_returns,
)
from pirl_server.training.seeds import evaluation_seeds

CONFIG = EpisodesConfig(
    method="recap", steps=250, batch_size=64, learning_rate=3e-3, value_steps=60, positive_share=0.5, lookahead=2
)


def mixed(count: int = 12) -> list[Episode]:
    """Half the episodes execute GOOD and succeed, half BAD and fail."""
    return [episode(number, number % 2 == 0, GOOD if number % 2 == 0 else BAD) for number in range(count)]


def cut(episodes: Sequence[Episode]) -> EpisodeWindows:
    return episode_windows(toy_policy(), episodes)


def test_returns_are_the_normalised_time_to_success() -> None:
    """Episodes of 6 and of 10 steps: the unit is twice the longer one, so that no success is as bad as failure."""
    data = cut([episode(0, True, GOOD, 3), episode(1, False, BAD, 5)])
    returns, scale = normalised_returns(data)
    assert scale.unique().tolist() == [20.0]
    torch.testing.assert_close(returns[data.episode == 0], -data.steps_left[data.episode == 0] / 20.0)
    assert (returns[data.episode == 1] == -1.0).all()
    assert float(returns[data.episode == 0].max()) == pytest.approx(-0.1)
    slowest, _ = normalised_returns(cut([episode(0, True, GOOD, 5), episode(1, False, BAD, 5)]))
    assert float(slowest[:5].min()) == -0.5


def test_what_is_looked_ahead_to_is_the_first_window_from_there() -> None:
    data = cut([episode(0, True, GOOD, 4), episode(1, False, BAD, 4)])
    assert data.start.tolist() == [0, 2, 4, 6] * 2
    assert looked_ahead(data, 2).tolist() == [1, 2, 3, -1, 5, 6, 7, -1]
    assert looked_ahead(data, 6).tolist() == [3, -1, -1, -1, 7, -1, -1, -1]
    assert looked_ahead(data, 3).tolist() == [2, 3, -1, -1, 6, 7, -1, -1], "at least 3 steps on"


def test_a_gain_is_time_passed_and_value_gained_up_to_the_return_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact value of each episode no window of a success gains; with a constant one, those near its end do."""
    data = cut(mixed())
    returns, _ = normalised_returns(data)
    found: dict[str, torch.Tensor] = {}
    for name, value in (("exact", returns), ("constant", torch.full_like(returns, -0.5))):
        monkeypatch.setattr("pirl_server.training.episode_rl.methods.recap.held_out", lambda *_, v=value: v)
        monkeypatch.setattr("pirl_server.training.episode_rl.methods.recap.expected", lambda logits, _: logits)
        found[name], explained = advantages(toy_policy(), data, CONFIG, 0)
        assert explained == pytest.approx(1.0 if name == "exact" else 0.0, abs=1e-5)
    success, inside = data.outcome == 1.0, looked_ahead(data, 2) >= 0
    torch.testing.assert_close(found["exact"][success], torch.zeros(int(success.sum())), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["exact"][~success & inside], torch.full((12,), -2.0 / 12.0))
    torch.testing.assert_close(found["constant"][inside], torch.full((24,), -2.0 / 12.0))
    torch.testing.assert_close(found["constant"][~inside], returns[~inside] + 0.5)


def test_the_best_share_of_each_task_is_good_and_every_human() -> None:
    data = cut([*mixed(), *(episode(n, True, GOOD, instruction="do it") for n in range(20, 24))])
    task = torch.arange(len(data)) % 2
    advantage = torch.arange(len(data)).float() + 1000.0 * task
    human = torch.arange(len(data)) % 10 == 0
    data = replace(data, task=task, source=torch.where(human, int(ControlSource.HUMAN), int(ControlSource.POLICY)))
    good = marks(data, advantage, 0.3)
    assert good[human].all()
    for each in (0, 1):
        own = (task == each) & ~human
        assert float(good[own].float().mean()) == pytest.approx(0.3, abs=1.0 / int(own.sum()))
        assert float(advantage[own & good].min()) > float(advantage[own & ~good].max())


@pytest.mark.parametrize("make", [toy_policy, spoken_policy])
def test_prompts_say_which_windows_are_good_and_some_say_nothing(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    data = episode_windows(policy, mixed())
    good = torch.arange(len(data)) % 3 == 0
    windows = marked_windows(policy, data, good, CONFIG)
    state, said = data.state.numpy(), data.instructions[0]
    for row in (0, 1, 5):
        for column, words in ((windows.marked, conditioned(said, bool(good[row]))), (windows.plain, said)):
            ids, mask = policy.processor.prompts([words], state[row : row + 1])
            assert torch.equal(windows.tokens[column[row]], ids[0])
            assert torch.equal(windows.token_mask[column[row]], mask[0])
    rows = windows.draw(20_000, torch.Generator().manual_seed(0))
    last = {int(row): place for place, row in enumerate(rows)}
    assert set(windows.prompt.tolist()) <= set(windows.marked.tolist()) | set(windows.plain.tolist())
    assert len(last) == len(data)
    drawn = 0
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        row = windows.draw(1, generator)
        drawn += int((windows.prompt[row] == windows.plain[row]).all())
    assert drawn / 400 == pytest.approx(0.1, abs=4 * (0.09 / 400) ** 0.5)


def actions(folder: Path, words: str = "") -> float:
    policy = FlowPolicy.load(folder)
    seen = [toy_observation(2 * seed) for seed in evaluation_seeds(0)[:12]]
    requests = [PolicyRequest(replace(o, instruction=o.instruction + words), False, n) for n, o in enumerate(seen)]
    found = [each.chain[-1].mean() for each in policy.sample_batch(requests) if isinstance(each, PolicySample)]
    return float(np.mean(found))


def test_good_actions_are_asked_for_and_bad_ones_are_known(tmp_path: Path) -> None:
    """The same weights, asked for bad actions, give those: it is the mark that tells them apart."""
    base, config = save_toy(tmp_path / "base"), replace(CONFIG, vlm="train", lookahead=20)
    finetune_episodes(base, tmp_path / "out", mixed(24), config, 0, heard := Heard())
    good, bad = actions(tmp_path / "out"), actions(tmp_path / "out", WORSE)
    assert good > 0.4
    assert bad < -0.4
    assert load_card(tmp_path / "out").guidance == 1.0
    assert heard.numbers[0]["good_share"] == pytest.approx(0.5, abs=0.05)
    finetune_episodes(base, tmp_path / "strong", mixed(24), replace(config, guidance=1.5), 0, Heard())
    assert load_card(tmp_path / "strong").guidance == 1.5
    assert actions(tmp_path / "strong") >= good - 0.05


def test_another_round_begins_from_a_conditioned_policy(tmp_path: Path) -> None:
    base, config = save_toy(tmp_path / "base"), replace(CONFIG, steps=5)
    finetune_episodes(base, tmp_path / "one", mixed(), config, 0, Heard())
    finetune_episodes(tmp_path / "one", tmp_path / "two", mixed(), config, 0, Heard())
    assert load_card(tmp_path / "two").guidance == 1.0


def test_logs_of_one_outcome_are_rejected() -> None:
    run = Run(toy_policy(), CONFIG, 0, Heard())
    for success in (True, False):
        with pytest.raises(ValueError, match="recap needs both successes and failures"):
            Recap(run).prepare([episode(number, success, GOOD) for number in range(12)])


def test_a_log_in_which_nothing_gained_is_rejected() -> None:
    class Flat(Recap):
        def gain(self, data: EpisodeWindows) -> tuple[torch.Tensor, dict[str, float]]:
            return torch.zeros(len(data)), {}

    with pytest.raises(ValueError, match="none of 36 windows gained anything"):
        Flat(Run(toy_policy(), CONFIG, 0, Heard())).prepare(mixed())


def test_what_the_policy_did_before_a_takeover_is_a_failure_and_the_human_good() -> None:
    logged = episode(40, True, BAD, 4)
    source = logged.steps.source.copy()
    source[-4:] = int(ControlSource.HUMAN)
    run = Run(toy_policy(), CONFIG, 0, Heard())
    data = cut([*mixed(), with_steps(logged, source=source)])
    windows = Recap(run).prepare([*mixed(), with_steps(logged, source=source)])
    rescued = data.episode == 12
    assert windows.good[rescued & data.human].all()
    assert (normalised_returns(data)[0][rescued & ~data.human] == -1.0).all()
