"""Candidates that are broken in different ways, on a real server process: each is rejected with its reason, and no
robot gets a chunk of it, by no way that needs no `force`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import patient
from serve_process import CHECKPOINT, CONTRACT, INSTRUCTION, ServeProcess, observe

from pirl_contract import StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.config.training import EpisodesConfig
from pirl_server.episodes.store import EpisodeStore
from pirl_server.model import families
from pirl_server.model.layers.tower_config import TowerConfig
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint, save_checkpoint
from pirl_server.policy.model_card import ModelCard
from pirl_server.registry.routing_rules import CANDIDATE
from pirl_server.registry.versions import Registry
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_rl.methods.method import no_archive
from pirl_server.training.offline_evidence import measure

Weights = dict[str, torch.Tensor]
BASE = checkpoint_version(CHECKPOINT)
LAYERS = 200
"""of a small width: a chunk takes longer than the 50 ms of the one action that is played of it, on any CPU"""


def zero(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
    return card, {name: torch.zeros_like(each) for name, each in weights.items()}


def shuffled(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
    """The gripper's action comes first, and so on."""
    return card, {name: each.flip(0) if "action_out_proj" in name else each for name, each in weights.items()}


def not_finite(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
    return card, weights | {"state_proj.bias": weights["state_proj.bias"] * float("nan")}


def other_contract(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
    return replace(card, contract=replace(card.contract, rate_hz=10.0)), weights


def too_slow(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
    small = TowerConfig(16, 16)
    model = replace(card.model, depth=LAYERS, vlm=small, expert=small, head_dim=8, heads=2)
    return replace(card, model=model, execute_horizon=1), dict(families.build(model).state_dict())


@dataclass
class Site:
    """A server process and its one robot."""

    server: ServeProcess
    registry: Registry
    robot: PolicyClient

    def drive(self) -> str:
        """One successful episode of two chunks; the version that drove it."""
        self.robot.start_episode(CONTRACT, INSTRUCTION)
        for number in range(2):
            seen = replace(observe("arm-1"), state=np.full(CONTRACT.state_dim, 0.01 * number, np.float32))
            chunk = self.robot.infer(seen)
            self.robot.report_outcomes(
                [StepOutcome(chunk.chunk_id, step, action, seen.state) for step, action in enumerate(chunk.actions)]
            )
        self.robot.end_episode("success", "operator", "operator")
        return chunk.policy_version

    def learnt(self, folder: Path, change: Callable[[ModelCard, Weights], tuple[ModelCard, Weights]]) -> str:
        """Register a version as a job does, with what held-out episodes say of it where it can be read."""
        card, weights, _ = load_checkpoint(CHECKPOINT)
        card, weights = change(card, dict(weights))
        version = save_checkpoint(folder, replace(card, lineage={"parent": BASE}), weights)
        if change in (zero, shuffled):
            store = EpisodeStore(self.server.root / EPISODES)
            log = EpisodeLog.of([store.open(each.id) for each in store.list()])
            self.registry.measured(measure(CHECKPOINT, folder, log, EpisodesConfig(), 0, no_archive, "job_x"))
        self.registry.add(version, folder, card.contract, parent=BASE, job="job_x")
        self.registry.point(CANDIDATE, version, "job_x", "finetune_episodes")
        return version


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("broken") / "root"
    with ServeProcess(root) as server:
        server.wait_until_serving()
        robot = PolicyClient(server.address, "arm-1", timeout_s=patient(20.0))
        made = Site(server, Registry(root / MODELS), robot)
        for _ in range(3):
            assert made.drive() == BASE
        yield made
        robot.close()


def by_name(site: Site, robot_id: str) -> str:
    """The version that a robot gets that asks for the candidate."""
    with closing(PolicyClient(site.server.address, robot_id, timeout_s=patient(20.0), alias="candidate")) as client:
        client.info()
        return client.infer(observe(robot_id)).policy_version


def audited(site: Site, version: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (site.server.root / MODELS / "audit.jsonl").read_text().splitlines())
    return [line for line in lines if line.get("version") == version]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (not_finite, "tensor 'state_proj.bias' holds values that are not finite"),
        (other_contract, "rate_hz: 20.0 here, 10.0 there"),
        (too_slow, "is too slow: a chunk takes"),
        (zero, "held-out action error"),
        (shuffled, "held-out action error"),
    ],
    ids=["not-finite", "other-contract", "too-slow", "zero", "shuffled"],
)
def test_no_robot_gets_a_chunk_of_it(
    site: Site, tmp_path: Path, change: Callable[[ModelCard, Weights], tuple[ModelCard, Weights]], why: str
) -> None:
    version, web = site.learnt(tmp_path / "candidate", change), site.server.web
    canary = web.put("/v1/routing/canary", json={"version": version, "robots": ["arm-1"], "reason": "try it"})
    assert (canary.status_code, why in canary.json()["detail"]) == (409, True), canary.text
    for call in ("/v1/models/promote", "/v1/routing/pins/arm-1"):
        method = "PUT" if "pins" in call else "POST"
        refused = web.request(method, call, json={"version": version, "reason": "try it"})
        assert refused.status_code == 409, refused.text
    with pytest.raises(ValueError, match="candidate"):
        by_name(site, "arm-1")
    assert site.drive() == BASE
    lines = audited(site, version)
    assert "refused" in {line["event"] for line in lines}
    assert not [line for line in lines if line["event"] in ("canary", "canary share", "forced")]
    assert not [line for line in lines if line.get("alias") == "production"]


def test_an_unbroken_version_gets_a_canary(site: Site, tmp_path: Path) -> None:
    """Negative control: the ways that are closed to broken ones are open."""

    def nudged(card: ModelCard, weights: Weights) -> tuple[ModelCard, Weights]:
        return card, weights | {"state_proj.bias": weights["state_proj.bias"] + 1e-4}

    version = site.learnt(tmp_path / "candidate", nudged)
    reply = site.server.web.put("/v1/routing/canary", json={"version": version, "robots": ["arm-1"], "reason": "try"})
    assert reply.status_code == 200, reply.text
    assert site.drive() == version
    assert by_name(site, "arm-1") == version
    with pytest.raises(ValueError, match="'arm-2' is not in the canary"):
        by_name(site, "arm-2")
    site.server.web.delete("/v1/routing/canary")
    assert site.drive() == BASE
