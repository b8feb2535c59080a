"""`auto`: what the episodes are decides on the method, and the lineage says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from explored_log import explored, log_of, with_steps
from toy_arm import Heard, save_toy, toy_policy
from toy_log import BAD, GOOD, episode

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.schema import Episode
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.method_choice import choose


def greedy(success: Sequence[bool | None]) -> list[Episode]:
    return [episode(number, each, GOOD if each else BAD) for number, each in enumerate(success)]


def corrected(number: int) -> Episode:
    logged = episode(number, True, BAD, 4)
    source = logged.steps.source.copy()
    source[-2:] = int(ControlSource.HUMAN)
    return with_steps(logged, source=source)


def exploring(times: int = 1) -> list[Episode]:
    return log_of(toy_policy(), range(40)) * times


def old(logged: list[Episode]) -> list[Episode]:
    return [replace(each, info=replace(each.info, policy_versions=("long ago",))) for each in logged]


CASES: list[tuple[list[Episode], str, str]] = [
    ([*exploring(), *(corrected(number) for number in range(100, 103))], "dagger", "3 episodes have a takeover"),
    ([*exploring(5), corrected(100)], "ppo_logged", "200 episodes have log-densities of the base"),
    (exploring(4), "filtered_bc", "160 of 160 episodes have fresh log-densities"),
    (
        exploring()[:5] + greedy([True, False] * 6),
        "filtered_bc",
        "5 of 17 episodes have fresh log-densities",
    ),
    (old(exploring(5)), "filtered_bc", "0 of 200 episodes have fresh log-densities"),
    (greedy([True] * 12), "filtered_bc", "12 successes, 0 failures; 0 of 12"),
    (greedy([True, False, False]), "filtered_bc", "1 successes, 2 failures; 0 of 3"),
    (greedy([None] * 12), "progress", "none of 12 episodes is labelled"),
    (greedy([False] * 12), "advantage_weighted", "all of 12 labelled episodes failed"),
]


@pytest.mark.parametrize(("logged", "method", "why"), CASES, ids=[f"{n} {case[1]}" for n, case in enumerate(CASES)])
def test_the_log_decides(logged: list[Episode], method: str, why: str) -> None:
    found = choose(EpisodeLog.of(logged).facts, ["toy"])
    assert found.method == method
    assert why in found.why


def test_one_version_back_is_fresh_if_it_is_known(tmp_path: Path) -> None:
    facts = EpisodeLog.of(old(exploring(5))).facts
    assert choose(facts, ["toy", "long ago"]).method == "ppo_logged"
    assert choose(facts, ["toy"]).method == "filtered_bc"


def test_the_chosen_method_trains_and_is_recorded(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    policy = FlowPolicy.load(base)
    logged = [explored(policy, number) for number in range(40)] * 5
    config = EpisodesConfig(steps=2, value_steps=5, actor_steps=1)
    finetune_episodes(base, tmp_path / "out", logged, config, 0, Heard())
    lineage = load_card(tmp_path / "out").lineage
    assert lineage["method"] == "decoupled PPO on logged chains"
    assert "200 episodes have log-densities" in lineage["chosen"]
    finetune_episodes(base, tmp_path / "set", logged, replace(config, method="filtered_bc"), 0, Heard())
    lineage = load_card(tmp_path / "set").lineage
    assert (lineage["method"], lineage["chosen"]) == ("filtered behaviour cloning", "as configured")
