"""One period of the arm: each state is commanded once, each action is reported with the state that it led to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pirl_contract import Alteration, ControlSource
from pirl_ros.control.arm_executor import ArmExecutor, Tick
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.profile.profile import Profile
from pirl_ros.sensing.observation import JOINTS
from pirl_ros.sensing.synchronizer import Bundle

READY = [0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4, 0.04, 0.04]
PERIOD_NS = 50_000_000


def pose() -> SimpleNamespace:
    position, turn = SimpleNamespace(x=0.1, y=0.2, z=0.3), SimpleNamespace(w=1.0, x=0.0, y=0.0, z=0.0)
    return SimpleNamespace(pose=SimpleNamespace(position=position, orientation=turn))


def bundle(profile: Profile, tick: int) -> Bundle:
    names = [joint.name for joint in profile.joints]
    joints = SimpleNamespace(name=names, position=READY, velocity=[0.01 * tick] * 9)
    values = {JOINTS: joints} | {f"pose {each.name}": pose() for each in profile.poses}
    return Bundle(tick * PERIOD_NS, tick * PERIOD_NS, values)


def chunk(sequence: int = 1, stamp_tick: int = 0, episode: str = "e") -> PlayableChunk:
    actions = np.tile(np.array([0.01, 0.0, 0.0, 1.0], np.float32), (3, 1))
    return PlayableChunk(episode, sequence, f"c{sequence}", actions, 2, stamp_tick * PERIOD_NS)


@pytest.fixture
def executor(profile: Profile) -> ArmExecutor:
    return ArmExecutor(profile)


def run(executor: ArmExecutor, profile: Profile, tick: int, delay_ns: int = 0) -> Tick:
    return executor.tick(bundle(profile, tick), tick * PERIOD_NS + delay_ns)


def test_without_a_chunk_nothing_is_sent(executor: ArmExecutor, profile: Profile) -> None:
    assert run(executor, profile, 0) == Tick()
    assert run(executor, profile, 1) == Tick()


def test_actions_are_reported_one_state_later(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk())
    ticks = [run(executor, profile, number) for number in range(4)]
    assert [tick.command is not None for tick in ticks] == [True, True, False, False]
    outcomes = [tick.outcome for tick in ticks]
    assert outcomes[0] is None
    assert outcomes[3] is None
    for number, outcome in enumerate(outcomes[1:3]):
        assert outcome is not None
        assert (outcome.chunk_id, outcome.index) == ("c1", number)
        assert outcome.time_ns == (number + 1) * PERIOD_NS
        assert outcome.state.shape == (35,)
        np.testing.assert_allclose(outcome.state[9:18], 0.01 * (number + 1), rtol=1e-5)


def test_a_state_is_never_commanded_twice(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk())
    assert run(executor, profile, 0).command is not None
    assert run(executor, profile, 0) == Tick()


def test_a_chunk_that_comes_soon_after_the_state_is_played_at_once(executor: ArmExecutor, profile: Profile) -> None:
    run(executor, profile, 0)
    executor.accept(chunk())
    assert run(executor, profile, 0, delay_ns=20_000_000).command is not None


def test_a_chunk_that_comes_late_in_the_period_waits_for_the_next_state(
    executor: ArmExecutor, profile: Profile
) -> None:
    run(executor, profile, 0)
    executor.accept(chunk())
    assert run(executor, profile, 0, delay_ns=30_000_000) == Tick()
    assert run(executor, profile, 1).command is not None


def test_a_chunk_for_an_old_observation_is_refused_and_reported_once(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk(stamp_tick=0))
    command = run(executor, profile, 100).command
    assert command is not None
    assert command.joints is None
    outcome = run(executor, profile, 101).outcome
    assert outcome is not None
    assert (outcome.alterations, outcome.source) == (Alteration.STALE, ControlSource.HOLD)
    np.testing.assert_array_equal(outcome.executed[:3], 0.0)
    assert run(executor, profile, 102) == Tick(), "the rest of the chunk was dropped"


def test_a_pause_of_the_sensors_makes_the_rest_of_a_chunk_old(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk())
    run(executor, profile, 0)
    late = run(executor, profile, 30)
    assert late.command is not None
    assert late.command.alterations == Alteration.STALE


def test_at_the_end_the_action_under_way_is_still_reported(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk())
    run(executor, profile, 0)
    executor.end("e")
    tick = run(executor, profile, 1)
    assert tick.command is None
    assert tick.outcome is not None


def test_a_new_episode_reports_nothing_of_the_old_one(executor: ArmExecutor, profile: Profile) -> None:
    executor.accept(chunk())
    run(executor, profile, 0)
    executor.begin("next")
    assert run(executor, profile, 1) == Tick()
    assert executor.episode_id == "next"
