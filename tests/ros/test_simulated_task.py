"""The task solved for real: ManiSkill behind sim_arm_node, a scripted expert behind gRPC, all nodes in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_server import ScriptedServer, serving

from pirl_contract import Alteration, Observation
from pirl_ros.profile.profile import Profile

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.render, pytest.mark.slow]


class ExpertServer(ScriptedServer):
    """Plays the expert on the state that the robot sent."""

    def action(self, observation: Observation) -> np.ndarray:
        from pirl_sim.maniskill.experts import expert_action

        return expert_action("PushCube-v1", observation.state)


def test_an_expert_pushes_the_cube_over_ros(probe: Any, profile: Profile, tmp_path: Path) -> None:
    vulkan = pytest.importorskip(
        "pirl_sim.maniskill.vulkan", reason="the simulator is not installed: pip install 'pirl[sim]'"
    )
    pytest.importorskip("mani_skill", reason="the simulator is not installed: pip install 'pirl[sim]'")
    try:
        vulkan.require_vulkan(cameras=True)
    except RuntimeError as error:
        pytest.skip(str(error))
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
