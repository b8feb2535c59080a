"""A loop that lets a success model judge, on a whole server by REST: a real small model, real jobs, stored episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import until
from seen_success import LOOKING, save_backbone, seen_episode
from starlette.testclient import TestClient
from toy_arm import save_toy

from pirl_server.app import build
from pirl_server.atomic_files import utc_now
from pirl_server.config.serve import ServeConfig
from pirl_server.episodes.model_outcomes import MODEL_SOURCE
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import load_card
from pirl_server.registry.versions import Registry

LEARN_TO_JUDGE = {
    "kind": "success_model", "task": "squares", "backbone": "vit", "config": {"steps": 200, "accuracy": 0.7},
}  # fmt: skip
LOOP: dict[str, Any] = {
    "kind": "loop", "task": "squares", "evaluation": None, "rounds": 1, "episodes_per_round": 40, "learn_episodes": 60,
    "config": {"method": "filtered_bc", "steps": 2, "batch_size": 8, "min_episodes": 4, "learning_rate": 1e-2},
}  # fmt: skip
LABELLED, UNLABELLED = range(1000, 1022), range(2000, 2030)


def ended(web: TestClient, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        found: dict[str, Any] = web.get(f"/v1/jobs/{job}").json()
        return found

    until(lambda: look()["status"] in ("succeeded", "failed", "cancelled"), look, 240.0, 0.1)
    assert look()["status"] == "succeeded", look()["error"]
    return look()


def put(store: EpisodeStore, number: int, version: str, labelled: bool) -> None:
    """An episode of the production version, that ended now."""
    made = seen_episode(number, number % 2 == 0, labelled)
    store.write(replace(made, info=replace(made.info, policy_versions=(version,), created=utc_now())))


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.usefixtures("root_handlers")
def test_a_loop_learns_from_the_outcomes_of_a_success_model_and_says_how_many(tmp_path: Path) -> None:
    root = tmp_path / "root"
    store = EpisodeStore(root / EPISODES)
    for number in range(120):
        store.write(seen_episode(number, number % 2 == 0))
    save_backbone(tmp_path / "exchange" / "vit")
    base = save_toy(tmp_path / "base", contract=LOOKING)
    with build(ServeConfig(base, root, grpc_port=0, exchange=tmp_path / "exchange")) as (api, _):
        web, services = TestClient(api, base_url="http://127.0.0.1"), api.state.services
        production = web.get("/v1/models").json()["aliases"]["production"]
        absent = LOOP | {"success_model": {"version": "0" * 12}}
        assert "no success model '000000000000'" in web.post("/v1/jobs", json=absent).text
        judge = ended(web, web.post("/v1/jobs", json=LEARN_TO_JUDGE).json()["id"])["result"]["version"]
        created = web.post("/v1/jobs", json=LOOP | {"success_model": {"version": judge, "min_confidence": 0.5}})
        assert created.status_code == 201, created.text
        job = created.json()["id"]

        def stand() -> dict[str, Any]:
            found: dict[str, Any] = web.get(f"/v1/jobs/{job}").json()
            return found

        until(lambda: (stand()["result"] or {}).get("phase") == "collect", stand, 60.0, 0.05)
        for number in LABELLED:
            put(services.episodes, number, production, labelled=True)
        for number in UNLABELLED:
            put(services.episodes, number, production, labelled=False)
        until(lambda: stand()["result"]["phase"] == "canary" or stand()["result"]["rounds"], stand, 240.0, 0.1)
        result = stand()["result"]
        check(root, web, job, judge, result)
        assert result["phase"] == "canary", "no label of its own: what the model says does not promote it"
        assert result["canary"]["episodes"] == 0


def check(root: Path, web: TestClient, job: str, judge: str, result: dict[str, Any]) -> None:
    """The job's report, the checkpoint's lineage and the audit log agree on how many outcomes are the model's."""
    (learnt,) = [each for each in web.get("/v1/jobs").json()["data"] if each["spec"]["kind"] == "finetune_episodes"]
    assert learnt["spec"]["success_model"]["version"] == judge
    labels = learnt["result"]["labels"]
    by_model, by_people = labels["by_model"], LOOP["learn_episodes"] - len(UNLABELLED)
    assert labels == {"episodes": by_model + by_people, "by_model": by_model, "success_model": judge}
    report = json.loads((root / "jobs" / learnt["id"] / "data_report.json").read_text())
    assert report["model_labels"] == report["label_sources"][MODEL_SOURCE] == by_model
    assert 0 < by_model <= len(UNLABELLED)
    assert report["label_sources"]["operator"] == by_people
    lineage = load_card(Registry(root / MODELS).get(result["candidate"]).path).lineage
    assert lineage["success_model"] == judge
    assert lineage["success_model_labels"] == f"{by_model} of {labels['episodes']}"
    lines = [json.loads(line) for line in (root / MODELS / "audit.jsonl").read_text().splitlines()]
    pointed = [line["reason"] for line in lines if line["actor"] == learnt["id"] and line.get("alias") == "candidate"]
    assert pointed == [f"finetune_episodes, {by_model} of {labels['episodes']} labels by success model {judge}"]
    loops = [line["reason"] for line in lines if line["actor"] == f"loop {job}"]
    assert any(f"success model {judge}" in each for each in loops)
    assert result["model_labels"] == by_model
    unlabelled = web.get("/v1/episodes?label=unlabelled&limit=100").json()["data"]
    assert len(unlabelled) == len(UNLABELLED), "no label was written"
