"""A success model from a server's own queue: in a process, its curve in a tracker, its proposals accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from patience import until
from seen_success import save_backbone, seen_episode
from toy_arm import save_toy

from pirl_server.app import build
from pirl_server.config.jobs import parse_spec
from pirl_server.config.serve import ServeConfig
from pirl_server.episodes.proposal_decisions import decide
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs import metric_store
from pirl_server.jobs.job import Status
from pirl_server.paths import EPISODES

SPEC = {
    "kind": "success_model", "task": "squares", "backbone": "vit", "propose": {},
    "config": {"steps": 60, "grid": 4, "min_episodes": 8, "accuracy": 0.5, "test_share": 0.4, "calibration_share": 0.2},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("root_handlers")
def test_a_server_learns_proposes_and_keeps_the_curve(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    root = tmp_path / "root"
    store = EpisodeStore(root / EPISODES)
    for number in range(60):
        store.write(seen_episode(number, number % 2 == 0, labelled=number < 50))
    save_backbone(tmp_path / "exchange" / "vit")
    config = ServeConfig(
        save_toy(tmp_path / "base"), root, grpc_port=0, exchange=tmp_path / "exchange",
        metrics_sink=(f"tensorboard:{tmp_path / 'curves'}",),
    )  # fmt: skip
    with build(config) as (api, _):
        services = api.state.services
        services.check_job(spec := parse_spec(SPEC))
        job = services.jobs.submit(spec)
        until(lambda: services.jobs.has_ended(job.id), "the job's end", 120.0, 0.05)
        ended = services.jobs.get(job.id)
        assert (ended.status, ended.error) == (Status.SUCCEEDED, None)
        assert ended.result is not None
        (card,), damaged = services.success_models.list()
        assert (card.version, card.job, damaged) == (ended.result["version"], job.id, {})
        (loss,) = metric_store.read(services.jobs.hosted.directory(job.id), ["loss"], None, 100)
        seen = accumulators.EventAccumulator(str(tmp_path / "curves" / job.id))
        seen.Reload()
        scalars = [(each.step, pytest.approx(each.value)) for each in seen.Scalars("loss")]
        assert [(each["step"], each["value"]) for each in loss.records] == scalars
        assert len(scalars) == 6
        proposed = services.episodes.proposals.ids("open")
        assert len(proposed) == ended.result["proposed"]
        for each in proposed:
            decide(services.episodes, each, "accept", "ada")
            assert services.episodes.summary(each).success is services.episodes.proposals.get(each).success
