"""Jobs and commands on logged episodes, of a task that no simulator has: what may be asked for, a dry run, a run."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from patience import completed
from toy_arm import INSTRUCTIONS, save_toy
from toy_log import BAD, GOOD, episode

from pirl_server import commands, job_main, simulation
from pirl_server.app import adopt
from pirl_server.config.jobs import FinetuneEpisodes, Sft, parse_spec
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, MODELS
from pirl_server.policy.checkpoint import checkpoint_version, load_card
from pirl_server.registry.versions import Registry

TASK = "wipe the table"
AWR = {"steps": 2, "batch_size": 4, "value_steps": 2, "min_episodes": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = EpisodeStore(tmp_path / "root" / EPISODES)
    for number in range(4):
        store.write(episode(number, number % 2 == 0, GOOD if number % 2 == 0 else BAD))
    return tmp_path / "root"


def test_a_task_of_logged_episodes_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(task: str) -> None:
        raise ValueError(f"'{task}' can't be simulated")

    monkeypatch.setattr(simulation, "check_task", missing)
    job_main.check(parse_spec({"kind": "finetune_episodes", "task": TASK}))
    job_main.check(parse_spec({"kind": "sft", "task": TASK, "config": {"source": "episodes"}}))
    for raw in ({"kind": "sft"}, {"kind": "finetune_sim"}, {"kind": "evaluate"}):
        with pytest.raises(ValueError, match="can't be simulated"):
            job_main.check(parse_spec({"task": "T-1"} | raw))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"kind": "finetune_sim", "task": TASK}, "'task' must match pattern"),
        ({"kind": "evaluate", "task": TASK}, "'task' must match pattern"),
        ({"kind": "finetune_episodes", "task": ""}, "'task' must match pattern"),
        (
            {"kind": "finetune_episodes", "select": {"robot": ["a"]}},
            "'select.robot' is not known; did you mean robots?",
        ),
        ({"kind": "finetune_episodes", "select": {"limit": 0}}, "'select.limit' must be greater than or equal to 1"),
        (
            {"kind": "finetune_episodes", "select": {"mode": "odd"}},
            "'select.mode' must be 'any', 'explore' or 'greedy'",
        ),
        ({"kind": "sft", "dry_run": True}, "select and dry_run are for logged episodes: set config.source"),
        ({"kind": "sft", "select": {"limit": 3}}, "select and dry_run are for logged episodes: set config.source"),
        (
            {"kind": "sft", "config": {"source": "episodes"}, "select": {"label": "failure"}},
            "select.label 'failure': successes are imitated",
        ),
    ],
)
def test_what_cannot_be_asked_for(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_spec({"task": "T-1"} | raw)


def test_a_spec_is_read_as_it_was_stored() -> None:
    select = {"robots": ["arm"], "versions": ["v1", "v2"], "max_age_days": 3.5, "limit": 9, "mode": "explore"}
    for raw in (
        {"kind": "finetune_episodes", "task": TASK, "select": select, "dry_run": True, "new_instructions": True},
        {"kind": "sft", "task": TASK, "select": select, "config": {"source": "episodes"}},
    ):
        spec = parse_spec(raw)
        assert parse_spec(json.loads(json.dumps(asdict(spec)))) == spec
        assert isinstance(spec, FinetuneEpisodes | Sft)
        assert spec.select.versions == ("v1", "v2")


def run(root: Path, name: str, spec: dict[str, Any]) -> Path:
    """The job's folder after its process has ended well."""
    job = root / "jobs" / name
    job.mkdir(parents=True)
    (job / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "pirl_server.job_main", str(root), str(job)]
    done = completed(command, limit_s=180)
    assert done.returncode == 0, done.stderr
    return job


def test_a_dry_run_reports_and_learns_nothing_and_the_run_learns_from_what_it_reported(
    root: Path, tmp_path: Path
) -> None:
    base = save_toy(tmp_path / "base")
    registry = Registry(root / MODELS)
    adopt(registry, base)
    spec = {"kind": "finetune_episodes", "task": TASK, "config": AWR}
    dry = run(root, "dry", {**spec, "dry_run": True})
    result = json.loads((dry / "result.json").read_text())
    report = json.loads((dry / "data_report.json").read_text())
    assert result == {"dry_run": True, "data_report": report}
    assert (report["episodes"], report["outcomes"]) == (4, {"success": 2, "failure": 2})
    assert not (dry / "checkpoint").exists()
    assert len(registry.versions()) == 1
    job = run(root, "real", spec)
    version = json.loads((job / "result.json").read_text())["version"]
    assert json.loads((job / "data_report.json").read_text()) == report
    lineage = load_card(registry.get(version).path).lineage
    assert (lineage["episodes"], lineage["episodes_sha256"]) == ("4", report["sha256"])
    assert lineage["task"] == TASK


def test_the_command_reports_and_learns_from_episodes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = save_toy(tmp_path / "base"), tmp_path / "out"
    words = [str(base), "--episodes", str(root), "--out", str(out), "--limit", "3", "--set"]
    words += [f"{name}={value}" for name, value in AWR.items()]
    assert commands.finetune(["--dry-run", *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["episodes", "3"] for line in printed), printed
    assert any("1 episodes beyond the limit" in line or "beyond the limit: 1" in line for line in printed), printed
    assert not out.exists()
    assert commands.finetune(words) == 0
    assert checkpoint_version(out / "checkpoint") in capsys.readouterr().out
    assert json.loads((out / "data_report.json").read_text())["episodes"] == 3
    card = load_card(out / "checkpoint")
    assert (card.task, card.instructions) == ("toy", INSTRUCTIONS), "the base's, where none is given"
    with pytest.raises(ValueError, match="give a checkpoint folder with --episodes"):
        commands.finetune(["--again", str(out), *words[1:]])
