"""A gripper's goals: few, meant, and never for what trembles."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.control.gripper import CLOSED, OPEN, GripperSwitch, fill_gripper_goal
from pirl_ros.profile.sections import GripperGroup, GripperKind

PERIOD = 0.05


def make(
    settle: float = 0.1, kind: GripperKind = "gripper_command", effort: float = 0.0, velocity: float = 0.0
) -> GripperGroup:
    own = {"settle": settle, "max_effort": effort, "velocity": velocity}
    return GripperGroup("grip", "knuckle", closed=0.8, open=0.0, joints=(), kind=kind, **own)


def play(actions: list[float], settle: float = 0.1) -> list[tuple[int, float]]:
    switch = GripperSwitch(make(settle))
    sent = [(index, switch.update(action, index * PERIOD)) for index, action in enumerate(actions)]
    return [(index, position) for index, position in sent if position is not None]


def test_a_wish_counts_once_it_lasted() -> None:
    assert play([1.0] * 5) == [(2, 0.0)]
    assert play([1.0] * 5, settle=0.0) == [(0, 0.0)]


def test_only_changes_are_sent() -> None:
    assert play([1.0] * 10 + [-1.0] * 10 + [1.0] * 10) == [(2, 0.0), (12, 0.8), (22, 0.0)]


def test_a_short_flicker_changes_nothing() -> None:
    assert play([1.0] * 5 + [-1.0, -1.0, 1.0] * 10) == [(2, 0.0)]


def test_inside_the_band_the_gripper_stays() -> None:
    assert play([1.0] * 5 + [0.19, -0.19] * 20) == [(2, 0.0)]
    assert play([0.0] * 20) == []


def test_nan_is_no_wish() -> None:
    assert play([1.0] * 5 + [math.nan] * 20 + [math.inf] * 20) == [(2, 0.0)]


def test_release_sends_the_same_again() -> None:
    switch = GripperSwitch(make(settle=0.0))
    assert (switch.state, switch.update(-1.0, 0.0), switch.state) == (None, 0.8, CLOSED)
    assert switch.update(-1.0, 1.0) is None
    switch.release()
    assert switch.state is None
    assert switch.update(-1.0, 2.0) == 0.8
    assert switch.update(0.5, 3.0) == 0.0
    assert switch.state == OPEN


@given(st.lists(st.floats(-1.5, 1.5), max_size=60))
def test_goals_alternate_and_each_was_wished_for_the_whole_time(actions: list[float]) -> None:
    goals = play(actions)
    assert all(first[1] != second[1] for first, second in pairwise(goals))
    for index, position in goals:
        lasting = actions[index - 2 : index + 1]
        assert len(lasting) == 3
        assert all(action > 0.2 if position == 0.0 else action < -0.2 for action in lasting)


def test_goals_of_both_actions() -> None:
    goal = fill_gripper_goal(SimpleNamespace(command=SimpleNamespace()), make(effort=20.0), 0.8, 0.25)
    assert vars(goal.command) == {"position": 0.8, "max_effort": 20.0}
    parallel = make(kind="parallel_gripper_command", effort=20.0)
    goal = fill_gripper_goal(SimpleNamespace(command=SimpleNamespace()), parallel, 0.8, 0.25)
    expected = {"name": ["knuckle"], "position": [0.8], "velocity": [0.25], "effort": [20.0]}
    assert vars(goal.command) == expected
    without = make(kind="parallel_gripper_command")
    goal = fill_gripper_goal(SimpleNamespace(command=SimpleNamespace()), without, 0.8, 0.0)
    assert vars(goal.command) == {"name": ["knuckle"], "position": [0.8]}
    with pytest.raises(AssertionError, match="takes no goals"):
        fill_gripper_goal(SimpleNamespace(), make(kind="joint_trajectory", velocity=1.0), 0.8, 0.25)
