"""An experiment's folder makes the same weights again, and refuses in words what it can't."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from toy_arm import Heard, make_toy, save_toy

from pirl_server.commands import finetune as command
from pirl_server.config.training import PpoConfig
from pirl_server.training import experiment
from pirl_server.training.sim_rl.finetune import finetune

CONFIG = PpoConfig(env_steps=60, envs=4, workers=1, decisions=5, noise="flow-noise", steps="all", anneal_to=0.2)


@pytest.mark.slow
def test_what_was_written_makes_the_same_version_again(tmp_path: Path) -> None:
    base = save_toy(tmp_path / "base")
    plan = experiment.planned("toy", base, CONFIG, seed=3)
    experiment.write(tmp_path / "run", plan)
    assert experiment.read(tmp_path / "run").result == ""
    first = finetune(base, tmp_path / "run" / "checkpoint", make_toy(), 1, CONFIG, 3, Heard())
    experiment.finish(tmp_path / "run", plan, first, cancelled=False)
    found = experiment.read(tmp_path / "run")
    found.check_base()
    assert found.config == CONFIG
    assert {"python", "torch", "numpy"} <= set(found.versions)
    again = finetune(Path(found.base), tmp_path / "again", make_toy(), 1, found.config, found.seed, Heard())
    assert again == found.result == first


def test_what_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an experiment"):
        experiment.read(tmp_path)
    base = save_toy(tmp_path / "base")
    plan = experiment.planned("toy", base, CONFIG, seed=3)
    values = asdict(plan)
    del values["seed"]
    (tmp_path / "experiment.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is not an experiment: 'seed'"):
        experiment.read(tmp_path)
    (tmp_path / "experiment.json").write_text(json.dumps(asdict(plan) | {"config": {"epochen": 3}}))
    with pytest.raises(ValueError, match="'epochen' is not known"):
        experiment.read(tmp_path)
    save_toy(tmp_path / "base", seed=5)
    with pytest.raises(ValueError, match=f"the experiment used {plan.base_version}"):
        plan.check_base()


def test_numbers_of_updates_are_kept_without_nan(tmp_path: Path) -> None:
    heard = experiment.Recorded(tmp_path / "run")
    heard.metrics(a=1.5, b=float("nan"))
    heard.metrics(a=2.0, b=3.0)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"a": 1.5, "b": None}, {"a": 2.0, "b": 3.0}]
    assert not experiment.Recorded(tmp_path / "run").cancelled
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "another run, other numbers"


@pytest.mark.sim
@pytest.mark.slow
def test_the_command_makes_an_experiment_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In ManiSkill, with two workers and demonstrations beside."""
    from pirl_server import simulation
    from pirl_server.model.pi0.pi0 import Pi0
    from pirl_server.policy.checkpoint import save_checkpoint
    from pirl_server.training.supervised.sft import new_card

    task = "PushCube-v1"
    card = new_card("tiny-state", task, simulation.contract(task), simulation.instructions(task))
    save_checkpoint(tmp_path / "base", card, Pi0(card.model).state_dict())
    sizes = ["env_steps=100", "envs=2", "decisions=4", "warmup_updates=1", "imitation_weight=0.1"]
    first = [str(tmp_path / "base"), "--task", task, "--out", str(tmp_path / "one"), "--set", *sizes]
    assert command(first) == 0
    assert (tmp_path / "one" / "metrics.jsonl").stat().st_size > 0
    assert command(["--again", str(tmp_path / "one"), "--out", str(tmp_path / "two")]) == 0
    assert "same version as before" in capsys.readouterr().out


def test_the_command_refuses_a_base_of_another_task(tmp_path: Path) -> None:
    """Its network would be told sentences that it has never read."""
    with pytest.raises(ValueError, match="trained for toy, not for PullCube-v1: '"):
        command([str(save_toy(tmp_path / "base")), "--task", "PullCube-v1", "--out", str(tmp_path / "out")])
