"""The composition roots: what is served after a start, what is refused before it, what a job may ask for."""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

import pytest
from patience import completed, patient
from toy_arm import CONTRACT, save_toy

from pirl_contract.client import PolicyClient
from pirl_server import job_main
from pirl_server.app import adopt, build, serve
from pirl_server.config.jobs import parse_spec
from pirl_server.config.serve import ServeConfig
from pirl_server.paths import MODELS
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.registry.promotion import PRODUCTION
from pirl_server.registry.versions import Registry
from pirl_sim.maniskill.experts import EXPERTS


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / MODELS)


def events(tmp_path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (tmp_path / MODELS / "audit.jsonl").read_text().splitlines()]


def test_the_first_start_needs_a_checkpoint_and_serves_it(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a checkpoint"):
        adopt(registry, None)
    base = save_toy(tmp_path / "base")
    assert adopt(registry, base) == checkpoint_version(base) == registry.aliases()[PRODUCTION]
    assert events(tmp_path) == ["added", "started"]


def test_a_restart_keeps_what_was_promoted(registry: Registry, tmp_path: Path) -> None:
    """`pirl serve base` in a service file must not undo a promotion at every reboot."""
    base, better = save_toy(tmp_path / "base"), save_toy(tmp_path / "better", seed=1)
    adopt(registry, base)
    registry.add(checkpoint_version(better), better, CONTRACT)
    registry.point(PRODUCTION, checkpoint_version(better), actor="me", reason="better")
    before = events(tmp_path)
    assert adopt(registry, base) == checkpoint_version(better)
    assert adopt(registry, None) == checkpoint_version(better)
    assert events(tmp_path) == before, "nothing happened, so nothing is written"


def test_a_checkpoint_never_seen_becomes_production_and_can_be_rolled_back(registry: Registry, tmp_path: Path) -> None:
    base, new = save_toy(tmp_path / "base"), save_toy(tmp_path / "new", seed=1)
    adopt(registry, base)
    assert adopt(registry, new) == checkpoint_version(new) == registry.aliases()[PRODUCTION]
    assert registry.previous(PRODUCTION) == checkpoint_version(base)


def test_a_damaged_checkpoint_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    base, torn = save_toy(tmp_path / "base"), save_toy(tmp_path / "torn", seed=1)
    adopt(registry, base)
    (torn / "policy.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"policy\.safetensors"):
        adopt(registry, torn)
    assert registry.aliases()[PRODUCTION] == checkpoint_version(base)
    assert len(registry.versions()) == 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def config(tmp_path: Path, **changes: object) -> ServeConfig:
    # The port of stops, which is two above that of REST, may be anybody's.
    values = {"grpc_port": free_port(), "rest_port": free_port(), "stop_port": 0} | changes
    return ServeConfig(save_toy(tmp_path / "base"), tmp_path / "root", **values)  # type: ignore[arg-type]


def test_building_serves_robots_until_it_is_closed(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    settings = config(tmp_path)
    with build(settings):
        client = PolicyClient(f"127.0.0.1:{settings.grpc_port}", timeout_s=patient(20.0))
        assert client.info().policy_version == checkpoint_version(tmp_path / "base")
        assert client.info().contract == CONTRACT
    with pytest.raises(ConnectionError):
        client.info()
    client.close()
    left = [thread.name for thread in set(threading.enumerate()) - threads if not thread.daemon]
    assert left == []


def test_an_address_beyond_this_machine_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--allow-insecure"):
        serve(config(tmp_path, host="0.0.0.0"))
    assert not (tmp_path / "root").exists(), "refused before anything is made"


def test_an_unknown_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"host 'no\.such\.invalid' can't be resolved.*--host"):
        serve(config(tmp_path, host="no.such.invalid"))


def test_a_taken_port_is_refused_with_its_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"{port} is in use.*--rest-port"):
            serve(config(tmp_path, rest_port=port))
        threads = set(threading.enumerate())
        with pytest.raises(ValueError, match=rf"{port}.*in use.*--grpc-port"):
            serve(config(tmp_path, grpc_port=port))
        assert {thread for thread in threading.enumerate() if not thread.daemon} <= threads, "nothing runs on"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"kind": "finetune_sim", "task": "Push-v0"}, "unknown task 'Push-v0'; known: PushCube-v1"),
        ({"kind": "evaluate", "task": "Push-v0"}, "unknown task"),
        ({"kind": "finetune_sim", "config": {"epoch": 1}}, "'config.epoch' is not known; did you mean epochs"),
        ({"kind": "finetune_sim", "config": {"epochs": 0}}, "'config.epochs' must be greater than or equal to 1"),
        ({"kind": "finetune_sim", "config": {"temperature": 1}}, "'config.temperature' is not known"),
        ({"kind": "finetune_episodes", "config": {"envs": 1}}, "'config.envs' is not known"),
        ({"kind": "sft", "config": {"envs": 1}}, "'config.envs' is not known"),
        ({"kind": "sft", "config": {"source": "dreams"}}, "'config.source' must be 'expert' or 'episodes'"),
        ({"kind": "finetune_sim", "config": {"critic_features": 1}}, "'config.critic_features' must be a valid string"),
        (
            {"kind": "evaluate", "config": {"workers": 1}},
            "'config' is not known; there are: after, episodes, first, kind",
        ),
        ({"kind": "evaluate", "seed": 10}, "seed 10 must be 0 to 9"),
        ({"kind": "finetune_sim", "seed": 4294}, "seed 4294 must be 0 to 998"),
        ({"kind": "sft", "seed": 100}, "seed 100 must be 0 to 99"),
    ],
)
def test_a_job_that_cannot_run_is_refused_before_it_is_queued(raw: dict[str, object], words: str) -> None:
    kind = raw["kind"]
    job_main.check(parse_spec({"kind": kind, "task": "PushCube-v1"}))  # negative control
    with pytest.raises(ValueError, match=words) as caught:
        job_main.check(parse_spec({"task": "PushCube-v1"} | raw))
    assert "\n" not in str(caught.value)


def test_supervised_training_needs_an_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EXPERTS, "PullCube-v1")
    with pytest.raises(ValueError, match="'PullCube-v1' has no scripted expert; there are: LiftPegUpright-v1"):
        job_main.check(parse_spec({"kind": "sft", "task": "PullCube-v1"}))


def test_a_base_that_was_trained_for_another_task_is_refused(registry: Registry, tmp_path: Path) -> None:
    """Its network would be told sentences that it has never read."""
    adopt(registry, save_toy(tmp_path / "base"))
    job = tmp_path / "jobs" / "one"
    job.mkdir(parents=True)
    (job / "spec.json").write_text('{"kind": "finetune_sim", "task": "PushCube-v1"}')
    command = [sys.executable, "-m", "pirl_server.job_main", str(tmp_path), str(job)]
    done = completed(command, limit_s=120)
    assert done.returncode == 1
    assert "the base was trained for toy, not for PushCube-v1" in (job / "error.txt").read_text()
