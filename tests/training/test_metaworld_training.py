"""Supervised start, RL and evaluation on a suite: the same path as on the tabletop, with a contract of its own."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from installed import needs
from toy_arm import Heard

from pirl_server import commands, job_main, simulation
from pirl_server.config.jobs import parse_spec
from pirl_server.config.training import PpoConfig
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import load_card
from pirl_server.policy.features import features_of
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.sim_rl.finetune import finetune
from pirl_server.training.supervised.sft import new_card

needs("metaworld", reason="MetaWorld is not installed (extra 'metaworld')")
pytestmark = pytest.mark.sim
TASK = "metaworld/mt10"


def printed(command: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        assert getattr(commands, command[0])(command[1:]) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mt10") / "base"
    printed(["sft", "--task", TASK, "--out", str(folder), "--set", "demonstrations=10", "steps=20"])
    return folder


@pytest.mark.slow
def test_the_card_is_the_suites(base: Path) -> None:
    card = load_card(base)
    assert card.contract == simulation.contract(TASK)
    assert card.contract.robot == "sawyer_metaworld"
    assert card.features == "metaworld_relative"
    assert card.instructions == simulation.instructions(TASK)
    assert len(card.instructions) == 10
    assert card.action_scale == pytest.approx((0.04, 0.04, 0.04, 1.0))


@pytest.mark.slow
def test_rl_and_evaluation_run_on_all_its_tasks(base: Path, tmp_path: Path) -> None:
    config = PpoConfig(
        env_steps=400, envs=10, workers=1, decisions=12, warmup_updates=1, critic_features="policy_and_instruction"
    )
    heard, steps = Heard(), simulation.max_steps(TASK)
    version = finetune(base, tmp_path / "rl", partial(simulation.fast_env, TASK), steps, config, 0, heard)
    assert FlowPolicy.load(tmp_path / "rl").version == version
    assert all(numbers["first_log_ratio"] < 1e-5 for numbers in heard.numbers)
    lines = printed(["evaluate", str(tmp_path / "rl"), "--task", TASK, "--episodes", "4"]).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("metaworld/" + name for name in ("reach-v3", "push-v3", "pick-place-v3", "door-open-v3")),
        TASK,
    ]


def test_jobs_are_checked_like_others() -> None:
    for kind in ("sft", "evaluate", "finetune_sim"):
        job_main.check(parse_spec({"kind": kind, "task": TASK}))
        with pytest.raises(ValueError, match="unknown task 'metaworld/mt11'; known: metaworld/mt10"):
            job_main.check(parse_spec({"kind": kind, "task": "metaworld/mt11"}))
        with pytest.raises(ValueError, match="unknown simulator 'gazebo' of task 'gazebo/push'; known: maniskill"):
            job_main.check(parse_spec({"kind": kind, "task": "gazebo/push"}))
        for wrong in ("metaworld/../mt10", "metaworld/", "/mt10", "a/b/c"):
            with pytest.raises(ValueError, match=f"'task' must match pattern|unknown (task|simulator) .*{wrong}"):
                job_main.check(parse_spec({"kind": kind, "task": wrong}))


def test_every_instruction_fits_the_models_and_the_features_their_robot() -> None:
    for task in ("metaworld/mt50", "PushCube-v1"):
        contract = simulation.contract(task)
        state = np.zeros((2, contract.state_dim), np.float32)
        for preset, sees in (("tiny-state", False), ("tiny", True)):
            card = new_card(preset, task, contract, simulation.instructions(task))
            assert card.features == features_of(contract.robot, sees=sees)
            policy = FlowPolicy(card, Pi0(card.model), "new")
            assert policy.features(state).shape == (2, 32)
            policy.prompt_tokens(card.instructions)
