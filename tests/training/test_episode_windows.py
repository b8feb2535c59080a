"""Which recorded steps teach what: toy episodes whose targets, outcomes and returns are counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_pretrained import small_policy
from toy_arm import CONTRACT, SCALE, toy_policy
from toy_log import GOOD, episode

from pirl_contract import Alteration, ControlSource, Field
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.step_masks import masked_steps, targets
from pirl_server.training.episode_cut import chunk_deltas
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_targets import takeovers

P, H, _ = int(ControlSource.POLICY), int(ControlSource.HUMAN), int(ControlSource.HOLD)
RATE = CONTRACT.rate_hz
MARGIN = int(2 * RATE)
"""steps of 2 s"""


def driven(
    source: Sequence[int], success: bool | None = True, sees: bool = False, end_reason: str = "operator", **steps: Any
) -> Episode:
    """An episode of these sources, two steps a decision; step s executes 0.001 (s + 1) and its state is s + 1."""
    count = len(source)
    assert count % 2 == 0
    made = episode(0, success, GOOD, decisions=count // 2, sees=sees)
    called = np.array([at // 2 if each == P else -1 for at, each in enumerate(source)], np.int32)
    number = np.arange(1, count + 1, dtype=np.float32)[:, None]
    changed = {
        "executed": 0.001 * number * np.ones(2, np.float32),
        "state": number * np.ones(21, np.float32),
        "source": np.array(source, np.uint8),
        "call": called,
        "index": np.where(called >= 0, np.arange(count) % 2, 0).astype(np.int32),
        "time_ns": np.arange(1, count + 1) * int(1e9 / RATE),
    }
    first = np.array(
        [np.flatnonzero(called == call)[0] if (called == call).any() else -1 for call in range(count // 2)]
    )
    calls = replace(
        made.calls,
        step=first.astype(np.int32),
        state=np.arange(0, count, 2, dtype=np.float32)[:, None] * np.ones(21, np.float32),
        capture_time_ns=np.arange(0, count, 2) * int(1e9 / RATE),
    )
    info = replace(made.info, end_reason=end_reason)
    return replace(made, info=info, calls=calls, steps=replace(made.steps, **(changed | steps)))


def windows(*episodes: Episode, horizon: int = 3, sees: bool = False, unlabelled: bool = False) -> EpisodeWindows:
    return episode_windows(toy_policy(horizon=horizon, sees=sees), episodes, unlabelled)


def executed(data: EpisodeWindows) -> list[list[int]]:
    """Which steps' actions each window holds, counted from 0."""
    return (data.windows.actions[..., 0] * SCALE[0] / 0.001 - 1).round().int().tolist()


def test_the_policy_has_a_window_at_each_decision_and_a_human_at_each_step() -> None:
    data = windows(driven([P, P, P, P, H, H]))
    assert data.start.tolist() == [0, 2, 4, 5]
    assert data.call.tolist() == [0, 1, -1, -1]
    assert executed(data) == [[0, 1, 2], [2, 3, 4], [4, 5, 5], [5, 5, 5]]
    states = toy_policy().features(data.start.numpy().astype(np.float32)[:, None] * np.ones(21, np.float32))
    torch.testing.assert_close(data.windows.features, torch.from_numpy(states))


def test_a_window_teaches_one_draw_of_the_policy_and_nothing_beyond_the_end() -> None:
    """A chunk of three was left after two steps; the third action is of the next draw, which knows nothing of it."""
    data = windows(driven([P] * 4), horizon=4)
    assert executed(data) == [[0, 1, 2, 3], [2, 3, 3, 3]]
    assert data.windows.valid.tolist() == [[True, True, False, False]] * 2
    whole = windows(driven([H] * 4), horizon=4)
    assert whole.start.tolist() == [1, 2, 3], "before the first step no state is recorded"
    assert whole.windows.valid.tolist() == [[True] * 3 + [False], [True, True, False, False], [True] + [False] * 3]


HELD = {
    "hold": {"source": [P, P, P, _]},
    "emergency stop": {"alterations": Alteration.EMERGENCY_STOP},
    "watchdog": {"alterations": Alteration.WATCHDOG},
    "stale": {"alterations": Alteration.STALE},
    "not finite": {"alterations": Alteration.NOT_FINITE},
    "dry run": {"alterations": Alteration.DRY_RUN},
}


@pytest.mark.parametrize("why", HELD)
def test_a_step_that_held_the_arm_is_no_target(why: str) -> None:
    bits = np.array([0, 0, 0, int(HELD[why].get("alterations", 0))], np.uint32)
    logged = driven(HELD[why].get("source", [P] * 4), alterations=bits)  # type: ignore[arg-type]
    assert windows(logged).windows.valid.tolist() == [[True, True, False], [True, False, False]]
    assert {name: int(mask.sum()) for name, mask in masked_steps(logged.steps).items() if mask.any()} == {why: 1}
    bits[2] = bits[3]
    held = windows(driven([P, P, _, _] if why == "hold" else [P] * 4, alterations=bits))
    assert held.start.tolist() == [0], "a decision of which nothing was executed is none"
    human = windows(driven([P, P, H, H, _ if why == "hold" else H, H], alterations=np.array([0, 0, 0, 0, bits[3], 0])))
    assert human.start.tolist() == [0, 2, 3, 5], "no window begins there"
    assert human.windows.valid[1:].tolist() == [[True, True, False], [True, False, True], [True, False, False]]


@pytest.mark.parametrize("bit", ["LIMIT", "JUMP", "BLENDED", "CLIPPED", "WORKSPACE", "LINK_LOSS", "CONTINUED"])
def test_a_changed_action_that_was_executed_is_a_target(bit: str) -> None:
    logged = driven([P] * 4, alterations=np.full(4, int(Alteration[bit]), np.uint32))
    assert targets(logged.steps).all()


def test_a_value_that_is_not_finite_neither_teaches_nor_spreads() -> None:
    values = driven([P] * 4).steps.executed.copy()
    values[1] = np.nan
    data = windows(driven([P] * 4, executed=values))
    assert data.start.tolist() == [0, 2]
    assert torch.isfinite(data.windows.actions).all()
    assert data.windows.valid.tolist() == [[True, False, False], [True, True, False]]


def test_every_step_of_a_takeover_is_a_window_of_the_humans() -> None:
    """4 steps of the policy that needed rescue, 20 of the human that saved it."""
    data = windows(driven([P] * 4 + [H] * 20))
    assert len(data) == 22
    assert data.source.tolist() == [P] * 2 + [H] * 20
    assert data.human.tolist() == [False] * 2 + [True] * 20
    assert data.version.tolist() == [0] * 2 + [-1] * 20
    assert data.before_takeover.tolist() == [True] * 2 + [False] * 20
    assert data.returns(0.5)[:2].tolist() == [0.0] * 2, "not rewarded for the rescue"
    assert data.returns(0.5)[2:].tolist() == [0.5 ** ((19 - step) // 2) for step in range(20)]
    assert data.terminal.all()


def test_a_window_teaches_the_actions_of_one_source_only() -> None:
    data = windows(driven([P, P, P, H, H, H, P, P]))
    rows = dict(zip(data.start.tolist(), data.windows.valid.tolist()))
    assert rows[2] == [True, False, False], "what the human did is not the policy's"
    assert rows[4] == [True, True, False], "what the policy did is not the human's"
    assert rows[3] == [True, True, True]


def test_what_the_policy_did_longer_before_a_takeover_is_not_known_and_continues_with_the_failure() -> None:
    early = 6
    data = windows(driven([P] * (early + MARGIN) + [H] * 4))
    known, close = early // 2, MARGIN // 2
    assert data.before_takeover.tolist() == [False] * known + [True] * close + [False] * 4
    assert data.outcome[:known].isnan().all()
    assert data.outcome[known:].tolist() == [0.0] * close + [1.0] * 4
    assert data.bootstrap.tolist() == [known] * known + [-1] * (close + 4)
    assert data.bootstrap_discount(0.5)[:known].tolist() == [0.125, 0.25, 0.5]
    assert data.returns(0.5)[:known].tolist() == [0.0] * known
    assert data.steps_left[:known].tolist() == list(range(early + MARGIN, MARGIN, -2)), "to the takeover"
    assert data.seconds_left[known] == pytest.approx(2.0)


def test_decisions_after_the_hand_back_are_credited_with_the_outcome() -> None:
    data = windows(driven([P, P, H, H, P, P]))
    assert data.outcome.tolist() == [0.0, 1.0, 1.0, 1.0]
    failed = windows(driven([P, P, H, H, P, P], success=False))
    assert failed.outcome.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("source", "end_reason", "expected"),
    [
        ([P] * 4, "operator", []),
        ([H] * 4, "operator", []),
        ([H, H, P, P], "operator", []),
        ([P, P, H, H], "operator", [2]),
        ([P, _, _, H], "operator", [1]),
        ([P, _, P, P], "operator", []),
        ([P, H, P, H], "operator", [1, 3]),
        ([P, P, P, _], "takeover", [3]),
        ([P, P, H, H], "takeover", [2]),
        ([_, _], "takeover", []),
    ],
)
def test_a_takeover_counts_from_the_policy_s_last_step(source: list[int], end_reason: str, expected: list[int]) -> None:
    assert takeovers(driven(source, end_reason=end_reason)) == expected


def test_an_end_without_a_label_continues_with_the_value_of_its_last_window() -> None:
    logged = [driven([P] * 4, success=None, end_reason=reason) for reason in ("time_limit", "fault", "operator")]
    with pytest.raises(ValueError, match="no labelled episode"):
        windows(*logged)
    data = windows(*logged, driven([P] * 4, success=False), unlabelled=True)
    assert data.outcome[:6].isnan().all()
    assert data.bootstrap.tolist() == [1] * 2 + [3] * 2 + [5] * 2 + [-1] * 2
    assert data.terminal.tolist() == [False] * 6 + [True] * 2


def test_a_policy_that_sees_has_windows_at_calls_also_at_those_made_during_a_takeover() -> None:
    data = windows(driven([P, P, H, H, H, H, P, P], sees=True), sees=True)
    assert data.start.tolist() == [0, 2, 4, 6]
    assert data.call.tolist() == [0, 1, 2, 3]
    assert data.source.tolist() == [P, H, H, P]
    assert data.windows.images is not None
    logged = driven([P, P, H, H, H, H, P, P], sees=True)
    for name, images in data.windows.images.items():
        np.testing.assert_array_equal(images, logged.calls.images[name])
    untimed = windows(driven([P, P, H, H, H, H, P, P], sees=True, time_ns=np.zeros(8, np.int64)), sees=True)
    assert untimed.call.tolist() == [0, 3], "without a clock it is not known where the others lie"


def test_a_chunk_entered_late_teaches_what_was_played_of_it() -> None:
    """An arm that plays by time executed the former chunk, or held, while the policy computed."""
    logged = driven([P] * 4)
    late = windows(replace(logged, steps=replace(logged.steps, index=np.array([1, 2, 1, 2], np.int32))))
    assert late.start.tolist() == [-1, 1], "the observations"
    assert late.windows.valid.tolist() == [[False, True, True]] * 2
    assert executed(late) == [[0, 0, 1], [1, 2, 3]]
    assert (late.start + late.steps_left).tolist() == [4, 4]
    held = driven([P, P, _, P, P, P])
    index = np.array([0, 1, 0, 1, 0, 1], np.int32)
    data = windows(replace(held, steps=replace(held.steps, index=index)))
    assert data.start.tolist() == [0, 2, 4]
    assert data.source.tolist() == [P] * 3, "a hold before it takes no decision from the policy"
    assert data.windows.valid.tolist() == [[True, True, False], [False, True, False], [True, True, False]]


def test_joint_deltas_are_counted_from_the_observation_of_the_window() -> None:
    """A recorded delta counts from its chunk's observation, a human's from the state before it."""
    state = (Field("a.position", "rad"), *CONTRACT.state[1:])
    action = (Field("a.delta", "rad", -1.0, 1.0), CONTRACT.action[1])
    contract = replace(CONTRACT, state=state, action=action)
    assert chunk_deltas(contract) == ([0], [0])
    assert chunk_deltas(CONTRACT) == ([], [])
    pose = replace(contract, action=(Field("tcp_dx.from_observation", "m", -1.0, 1.0), CONTRACT.action[1]))
    with pytest.raises(ValueError, match=r"'tcp_dx.from_observation' counts from the tool"):
        chunk_deltas(pose)
    logged = driven([P, P, P, P, H, H])
    logged = replace(logged, info=replace(logged.info, contract=contract))
    policy = toy_policy(horizon=3, contract=contract)
    data = episode_windows(policy, [logged])
    deltas = (data.windows.actions[..., 0] * SCALE[0]).numpy()
    # Steps 0, 1 count from state 0; 2, 3 from state 2; 4 from 4 and 5 from 5.
    absolute = 0.001 * np.arange(1, 7) + [0, 0, 2, 2, 4, 5]
    for row, start in enumerate([0, 2, 4, 5]):
        expected = absolute[np.minimum(start + np.arange(3), 5)] - start
        np.testing.assert_allclose(deltas[row], expected, atol=1e-5)


def test_tasks_versions_and_ages_are_numbered_over_all_episodes() -> None:
    def one(number: int, instruction: str, version: str, day: int) -> Episode:
        made = episode(number, True, GOOD, decisions=1, instruction=instruction)
        info = replace(made.info, policy_versions=(version,), created=f"2026-01-0{day}T12:00:00+00:00")
        return replace(made, info=info)

    data = windows(one(0, "do it", "a", 1), one(1, "do the one right thing", "b", 3), one(2, "do it", "a", 2))
    assert data.instructions == ("do it", "do the one right thing")
    assert data.versions == ("a", "b")
    assert data.task.tolist() == [0, 1, 0]
    assert data.version.tolist() == [0, 1, 0]
    assert data.age_days.tolist() == [2.0, 0.0, 1.0]
    assert [info.id for info in data.infos] == [f"{number:032x}" for number in range(3)]


def test_absolute_targets_and_every_gripper_stay_beyond_the_end() -> None:
    """Zeros there, as for displacements, would send joints to 0 and open one of two grippers."""
    policy = small_policy()
    made = episode(0, True, GOOD, decisions=1, sees=True, contract=policy.contract)
    executed_TD = np.array([[0.3, -0.4, 0.03], [1.2, -0.8, 0.01]], np.float32)
    state = np.array([[0.1, 0.2, 0.3, 0.02]], np.float32)
    views = {camera.name: np.zeros((1, camera.height, camera.width, 3), np.uint8) for camera in policy.contract.cameras}
    calls = replace(made.calls, state=state, images=views)
    steps = replace(made.steps, executed=executed_TD, state=np.zeros((2, 4), np.float32))
    data = episode_windows(policy, [replace(made, calls=calls, steps=steps)])
    actions = policy.to_actions(data.windows.actions, state)
    np.testing.assert_allclose(actions[0], executed_TD[[0, 1, 1]], atol=1e-5)
    assert data.windows.valid.tolist() == [[True, True, False]]
