"""Pins and canary as robots meet them, over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from patience import patient

from pirl_contract import Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.registry.routing_rules import Routes
from pirl_server.serving.router import Router
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService


def test_a_robot_meets_its_version_from_its_next_episode_on(
    service: Any, make_policy: Any, observe: Callable[[int], Observation], contract: Contract, tmp_path: Path
) -> None:
    service.engine.load(make_policy(version="v2", mark=2.0))
    router = Router(service.recorder.is_open)
    server, port = start_grpc(PolicyService(service.engine, service.recorder, True, router=router), "127.0.0.1:0")
    client = PolicyClient(f"127.0.0.1:{port}", "arm-1", timeout_s=patient(20.0))
    episodes = []
    for _ in range(2):
        client.start_episode(contract, observe(0).instruction)
        chunk = client.infer(observe(0))
        router.change(Routes(canary_robots=("arm-1",)), "v2")
        again = client.infer(observe(1), [StepOutcome(chunk.chunk_id, 0, chunk.actions[0], observe(0).state)])
        assert again.policy_version == chunk.policy_version, "decided when it began"
        assert (again.actions == float(again.policy_version[1:])).all()
        client.end_episode("unlabeled", "", "operator")
        episodes.append(chunk.policy_version)
    assert episodes == ["v1", "v2"]
    assert client.info().policy_version == "v2", "a robot is told who would answer it"
    router.change(Routes(), None)
    assert client.infer(observe(2)).policy_version == "v1"
    with pytest.raises(ValueError, match="shadow never controls"):
        PolicyClient(f"127.0.0.1:{port}", "arm-1", timeout_s=patient(20.0), alias="shadow").infer(observe(0))
    client.close()
    server.stop(None).wait()
