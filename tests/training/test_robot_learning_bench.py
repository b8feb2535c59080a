"""The benchmark of learning from logs: what its arms log, what a cell says, and the form of its document."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from toy_arm import BEST, SCALE, make_toy, toy_policy

from pirl_contract import ControlSource
from pirl_server.config.training import EpisodesConfig
from pirl_server.training.episode_rl.behaviour import log_probs
from pirl_server.training.episode_rl.logged_decisions import logged_decisions

BENCH = Path(__file__).parents[2] / "bench" / "robot_learning_run"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield {name: __import__(name) for name in ("fleet", "cells", "page")}
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def test_arms_log_what_the_policy_drew_in_the_order_of_the_seeds(bench: dict[str, ModuleType]) -> None:
    policy, make = toy_policy(), make_toy(length=5, tolerance=0.5)
    logged = bench["fleet"].log_episodes(policy, make, 5, range(300, 340))
    assert [int(each.info.id, 16) for each in logged] == list(range(300, 340))
    assert {each.info.success for each in logged} == {True, False}
    data, why = logged_decisions(policy, logged)
    assert data.acted.all()
    assert not why
    torch.testing.assert_close(log_probs(policy, data), data.stored_log_prob, atol=1e-5, rtol=0)
    assert data.executed.unique().tolist() == [1, 2], "the last chunk is cut where the episode ends"
    again = bench["fleet"].log_episodes(policy, make, 5, range(320, 340))
    for first, second in zip(logged[20:], again):
        np.testing.assert_allclose(first.calls.chain, second.calls.chain, atol=1e-5)
    still = bench["fleet"].log_episodes(policy, make, 5, range(300, 304), explore=False)
    assert all((each.calls.sde_index == -1).all() for each in still)


def test_a_person_takes_over_in_some_episodes_that_have_not_ended(bench: dict[str, ModuleType]) -> None:
    help_ = bench["fleet"].Help(lambda _: BEST * SCALE, after=3, share=0.5)
    logged = bench["fleet"].log_episodes(
        toy_policy(), make_toy(length=8, tolerance=1e-4), 8, range(100, 124), help_=help_
    )
    human = [each.steps.source == int(ControlSource.HUMAN) for each in logged]
    taken = [bool(steps.any()) for steps in human]
    assert 4 <= sum(taken) <= 20
    for each, steps, helped in zip(logged, human, taken):
        assert helped == bool(each.info.success), "only the person succeeds"
        assert not steps[:3].any()
        assert steps[3:].all() == helped


def test_cells_and_rounds_have_the_form_of_the_document(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    found = bench["cells"].compared([True, False, False, True], [True, True, False, False])
    assert (found["before"], found["after"], found["n"]) == (0.5, 0.5, 4)
    assert (found["gained"], found["lost"], found["p"]) == (1, 1, 1.0)
    part = found | {"logged_successes": 3, "robot_minutes": 1.5, "wall_s": 2.0}
    rows = []
    for method, count in (("recap", 1), ("ppo_logged", 2)):
        plan = {"task": "T", "method": method, "rounds": count, "episodes": 10}
        rows.append({"plan": plan, "seed": 0, "episodes": 10 * count, **part, "rounds": [part] * count})
    rows.append(rows[0] | {"plan": rows[0]["plan"] | {"control": "shuffled"}})
    document = bench["page"].document(rows)
    assert document["controls"]["T"]["recap, shuffled"][0]["control"] == "shuffled"
    keys = {"seed", "episodes", "before", "after", "n", "p", "robot_minutes", "wall_s"}
    (cell,) = document["tasks"]["T"]["recap"]
    assert keys <= set(cell)
    rounds = document["rounds"]["T"]["ppo_logged"]
    assert [(each["round"], each["episodes"]) for each in rounds] == [(1, 10), (2, 20)]
    bench["page"].write_page(tmp_path / "page.md", rows, "command")
    row = "| T | recap | 0 | 10 (3) | 1.5 | 0.500 | 0.500 | +1 -1 of 4 | 1 | 2 |"
    page = (tmp_path / "page.md").read_text()
    assert row in page
    assert row.replace("recap", "recap, shuffled") in page
    assert "| T | recap | +0.0 (+0.0) |" in page
    bench["page"].write_page(
        tmp_path / "page.md", [rows[0] | {"plan": rows[0]["plan"] | {"control": "flipped"}}], "other"
    )
    page = (tmp_path / "page.md").read_text()
    assert row in page, "the other command said nothing of it"
    assert row.replace("recap", "recap, flipped") in page
    assert row.replace("recap", "recap, shuffled") in page
    assert "Made by `python command`." in page
    assert "Made by `python command`, `python other`." in page, "both controls"
    assert (tmp_path / "page.json").is_file()
    again = rows[0] | {"after": 1.0}
    bench["page"].write_page(tmp_path / "page.md", [again, rows[0] | {"episodes": 20}], "third")
    page = (tmp_path / "page.md").read_text()
    assert "| task | method | 10 episodes | 20 episodes |" in page
    assert "| T | recap | +50.0 (+50.0) | +0.0 (+0.0) |" in page, "the same size and seed anew, another size beside it"
    assert "Made by `python command`, `python third`." in page


def test_controls_change_labels_alone(bench: dict[str, ModuleType]) -> None:
    policy, make = toy_policy(), make_toy(length=5, tolerance=0.5)
    logged = bench["fleet"].log_episodes(policy, make, 5, range(300, 324))
    labels = [each.info.success for each in logged]
    controlled = bench["cells"].controlled
    assert [each.info.success for each in controlled(logged, None, 0)] == labels
    assert [each.info.success for each in controlled(logged, "flipped", 0)] == [not label for label in labels]
    shuffled = [each.info.success for each in controlled(logged, "shuffled", 0)]
    assert sorted(shuffled) == sorted(labels)
    assert shuffled != labels
    assert shuffled != [each.info.success for each in controlled(logged, "shuffled", 1)]
    assert all(new.steps is old.steps for new, old in zip(controlled(logged, "shuffled", 0), logged))


def test_another_setting_is_another_cell(bench: dict[str, ModuleType]) -> None:
    plan = bench["cells"].Plan
    base = plan("PushCube-v1", "recap", 0, 10, 400)
    assert base.key == plan("PushCube-v1", "recap", 0, 10, 400).key
    others = [
        plan("PushCube-v1", "recap", 1, 10, 400),
        plan("PushCube-v1", "recap", 0, 10, 400, config={"guidance": 2}),
        plan("PushCube-v1", "recap", 0, 10, 400, tuning=True),
        plan("PushCube-v1", "recap", 0, 10, 400, control="flipped"),
    ]
    assert len({base.key, *(each.key for each in others)}) == 5
    assert EpisodesConfig().method == "auto"
