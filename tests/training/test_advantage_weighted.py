"""What each window weighs: by outcome, by task, by who drove, and where the outcome is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_arm import INSTRUCTIONS, Heard, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_rl.methods.advantage_weighted import (
    AdvantageWeighted,
    held_out_advantages,
    scaled_per_task,
)
from pirl_server.training.episode_rl.methods.method import Run
from pirl_server.training.episode_rl.values import critic_reading

CONFIG = EpisodesConfig(value_steps=120)
HUMAN, POLICY = int(ControlSource.HUMAN), int(ControlSource.POLICY)


def prepared(
    episodes: Sequence[Episode], policy: FlowPolicy | None = None, config: EpisodesConfig = CONFIG
) -> tuple[ChunkDataset, dict[str, float]]:
    heard = Heard()
    made = AdvantageWeighted(Run(policy or toy_policy(), config, 0, heard)).prepare(episodes)
    return made, heard.numbers[-1]


def taken_over(number: int, success: bool, human: int, decisions: int = 3) -> Episode:
    """The policy begins, a human drives the last steps."""
    made = episode(number, success, GOOD, decisions=decisions)
    source = np.full(2 * decisions, POLICY, np.uint8)
    source[2 * decisions - human :] = HUMAN
    call = np.where(source == POLICY, made.steps.call, -1).astype(np.int32)
    played = np.isin(np.arange(decisions), call)
    calls = replace(made.calls, step=np.where(played, made.calls.step, -1).astype(np.int32))
    return replace(made, calls=calls, steps=replace(made.steps, source=source, call=call))


def test_weights_favour_the_windows_of_successful_episodes() -> None:
    """The states say nothing, so that half of the log is better than usual."""
    data, _ = prepared([episode(n, n % 2 == 0, GOOD if n % 2 == 0 else BAD) for n in range(24)])
    success = torch.arange(72) // 3 % 2 == 0
    assert float(data.weight[success].min()) > 2 * float(data.weight[~success].max())


def test_a_human_weighs_the_cap_and_the_policy_is_not_rewarded_for_the_rescue() -> None:
    log = [taken_over(n, True, human=2) for n in range(6)] + [episode(6 + n, True, GOOD) for n in range(6)]
    data, numbers = prepared(log)
    rows = episode_windows(toy_policy(), log)
    assert int(rows.human.sum()) == numbers["of_humans"] == 12
    assert (data.weight[rows.human] == CONFIG.max_weight).all()
    assert rows.before_takeover.sum() == 12
    assert float(data.weight[rows.before_takeover].max()) < float(data.weight[rows.outcome == 1.0].min())
    unaided = [episode(n, True, GOOD) for n in range(12)]
    with pytest.raises(ValueError, match="12 of 12 episodes succeeded: both successes and failures of the policy"):
        prepared(unaided)


def test_each_task_has_the_same_spread() -> None:
    advantage, task = torch.tensor([2.0, -2.0, 0.5, -0.5, 9.0]), torch.tensor([0, 0, 1, 1, 1])
    counted = torch.tensor([True, True, True, True, False])
    scaled = scaled_per_task(advantage, task, counted)
    whole = float(torch.tensor([2.0, -2.0, 0.5, -0.5]).std(correction=0))
    torch.testing.assert_close(scaled, torch.tensor([whole, -whole, whole, -whole, 18 * whole]))
    one = scaled_per_task(advantage, torch.zeros(5).long(), torch.ones(5).bool())
    assert torch.equal(one, advantage), "one task keeps its scale"
    same = scaled_per_task(torch.tensor([0.0, 0.0, 1.0, -1.0]), torch.tensor([0, 0, 1, 1]), torch.ones(4).bool())
    assert same.tolist()[:2] == [0.0, 0.0]


def share_of_the_hard_task(log: list[Episode]) -> float:
    """Of the sum of weights."""
    data, _ = prepared(log)
    hard = torch.tensor([each.info.instruction == INSTRUCTIONS[1] for each in log]).repeat_interleave(3)
    return float(data.weight[hard].sum() / data.weight.sum())


def test_a_hard_task_has_its_part_of_the_loss() -> None:
    """Nine in ten succeed at one task, one in ten at the other, in states that say nothing of which it is."""
    log = [episode(n, (n % 2 == 0) != (n in (4, 9, 14, 19)), GOOD, instruction=INSTRUCTIONS[n % 2]) for n in range(40)]
    blind = [replace(each, info=replace(each.info, instruction=INSTRUCTIONS[0])) for each in log]
    hard = torch.arange(40).remainder(2).repeat_interleave(3) == 1
    data, _ = prepared(blind)
    assert share_of_the_hard_task(log) == pytest.approx(0.5, abs=0.12)
    assert float(data.weight[hard].sum() / data.weight.sum()) < 0.2, "not told the task, the critic blames it"


def test_where_nothing_is_known_the_advantage_is_zero_and_before_it_the_value_continues() -> None:
    """Episodes cut without a label, beside ones with: no outcome is invented for them."""
    log = [episode(n, None if n < 3 else n % 2 == 0, GOOD) for n in range(12)]
    policy = toy_policy()
    data = episode_windows(policy, log, unlabelled=True)
    reading = critic_reading(policy, data.windows, data.task, data.elapsed)
    advantage, _ = held_out_advantages(data, reading, 0.9, 120, 0)
    assert torch.isfinite(advantage).all()
    itself = data.bootstrap == torch.arange(len(data))
    assert int(itself.sum()) == 3
    assert not advantage[itself].any()
    cut = ~data.terminal & ~itself
    assert float(advantage[cut].abs().mean()) < 0.3 * float(advantage[data.terminal].abs().mean())


def seeing(bright_succeeds: bool) -> list[Episode]:
    """Half of the episodes have bright images; with `bright_succeeds` these are the successes."""
    log = []
    for n in range(16):
        made = episode(n, n % 2 == 0 if bright_succeeds else n % 4 < 2, GOOD, sees=True)
        level = 40 if n % 2 else 215
        images = {name: np.full_like(each, level) for name, each in made.calls.images.items()}
        log.append(replace(made, calls=replace(made.calls, images=images)))
    return log


def test_the_critic_of_a_policy_that_sees_sees() -> None:
    policy = toy_policy(sees=True)
    told = prepared(seeing(True), policy)[1]["explained_variance"]
    assert told > 0.5
    assert prepared(seeing(False), policy)[1]["explained_variance"] < 0.2, "outcomes that the images do not show"
