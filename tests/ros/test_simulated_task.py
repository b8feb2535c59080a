"""The task solved for real: ManiSkill behind sim_arm_node, a scripted expert behind gRPC, all nodes in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import patient
from scripted_server import ScriptedServer, serving

from pirl_contract import Alteration, ControlSource, Observation
from pirl_contract.v1 import policy_pb2 as pb
from pirl_ros.profile.profile import Profile

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.render, pytest.mark.slow]


class ExpertServer(ScriptedServer):
    """Plays the expert on the state that the robot sent."""

    def action(self, observation: Observation) -> np.ndarray:
        from pirl_sim.maniskill.experts import expert_action

        return expert_action("PushCube-v1", observation.state)


class IdleServer(ScriptedServer):
    """A policy that does nothing: it fails unless someone helps."""

    def action(self, observation: Observation) -> np.ndarray:
        return np.array([0.0, 0.0, 0.0, -1.0], np.float32)


@pytest.fixture(autouse=True)
def simulator() -> None:
    vulkan = pytest.importorskip(
        "pirl_sim.maniskill.vulkan", reason="the simulator is not installed: pip install 'pirl[sim]'"
    )
    pytest.importorskip("mani_skill", reason="the simulator is not installed: pip install 'pirl[sim]'")
    try:
        vulkan.require_vulkan(cameras=True)
    except RuntimeError as error:
        pytest.skip(str(error))


def run_episodes(probe: Any, address: str, summary: Path, episodes: int) -> list[dict[str, Any]]:
    """The robot's nodes and `episodes` episodes of at most 60 actions of the policy, stepped on command, no camera."""
    probe.start("sim_arm_node", step_on_command=True, use_cameras=False)
    probe.start("arm_node", step_on_command=True, use_cameras=False)
    probe.start("policy_node", server_address=address, use_cameras=False)
    runner = probe.start(
        "run_episodes",
        episodes=episodes,
        first_seed=100,
        summary_path=summary,
        max_steps=60,
        time_limit_s=patient(110.0),
        patience_s=patient(60.0),
    )
    probe.until(lambda: runner.poll() is not None, "episodes do not end")
    assert runner.returncode == 0, runner.communicate()[0]
    found: list[dict[str, Any]] = json.loads(summary.read_text())["episodes"]
    return found


def test_a_policy_that_fails_is_helped_by_the_operator_and_the_steps_say_so(
    probe: Any, profile: Profile, tmp_path: Path
) -> None:
    """Without the operator each episode fails: that is the control. With it, the rest of the episode is a person's."""
    probe.patience_s = 120.0
    service = IdleServer(profile.without_cameras().contract)
    with serving(service) as address:
        probe.start("scripted_operator", task="PushCube-v1", takeover_after=8, use_cameras=False)
        episodes = run_episodes(probe, address, tmp_path / "helped.json", episodes=2)
    assert [each["success"] for each in episodes] == [True, True]
    sources = [outcome.source for outcome in service.outcomes]
    assert sources[:8] == [ControlSource.POLICY] * 8
    human = [outcome for outcome in service.outcomes if outcome.source == ControlSource.HUMAN]
    assert len(human) > 10
    assert all(not outcome.chunk_id for outcome in human), "no chunk is credited with what a person did"
    assert np.ptp([outcome.executed[0] for outcome in human]) > 0.01, (
        "a person's actions are recorded in the contract's units"
    )
    assert [end.outcome for end in service.ends] == [pb.OUTCOME_SUCCESS] * 2


def test_without_an_operator_it_fails(probe: Any, profile: Profile, tmp_path: Path) -> None:
    probe.patience_s = 120.0
    service = IdleServer(profile.without_cameras().contract)
    with serving(service) as address:
        episodes = run_episodes(probe, address, tmp_path / "alone.json", episodes=1)
    assert [each["success"] for each in episodes] == [False]
    assert {outcome.source for outcome in service.outcomes} == {ControlSource.POLICY}


def test_an_expert_pushes_the_cube_over_ros(probe: Any, profile: Profile, tmp_path: Path) -> None:
    probe.patience_s = 120.0
    service = ExpertServer(profile.contract)
    with serving(service) as address:
        probe.start("sim_arm_node")
        probe.start("arm_node")
        probe.start("policy_node", server_address=address)
        runner = probe.start("run_episodes", episodes=3, first_seed=100, summary_path=tmp_path / "s.json")
        probe.until(lambda: runner.poll() is not None, "episodes do not end")
    assert json.loads((tmp_path / "s.json").read_text())["successes"] == 3
    assert not any(outcome.alterations & Alteration.JUMP for outcome in service.outcomes)
    images = np.stack([observation.images["base"] for observation in service.observations])
    assert images.std(axis=0).max() > 10, "the camera sees the arm move"
