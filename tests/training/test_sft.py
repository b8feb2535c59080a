"""Demonstrations become a policy: noise on what is executed, not on what is learnt; a loss that falls."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toy_arm import BEST, CONTRACT, SCALE, Heard, ToyEnv, make_toy, save_toy, toy_card, toy_observation, toy_policy

from pirl_contract import Observation, rollout
from pirl_server import simulation
from pirl_server.config.training import SftConfig
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.local_policy import LocalPolicy
from pirl_server.training.evaluate import evaluate
from pirl_server.training.seeds import DEMONSTRATION
from pirl_server.training.supervised.demonstrations import demonstrate, windows_of
from pirl_server.training.supervised.sft import new_card, sft


def expert(observation: Observation) -> np.ndarray:
    return BEST * SCALE


def test_noise_is_executed_and_not_recorded() -> None:
    played = []

    class Watched(ToyEnv):
        def step(self, action: np.ndarray):  # type: ignore[no-untyped-def]
            played.append(action)
            return super().step(action)

    observations, actions = demonstrate(Watched(length=4), expert, seed=3, noise=0.5, max_steps=10)
    assert len(observations) == len(actions) == 4
    np.testing.assert_array_equal(actions, np.tile(BEST * SCALE, (4, 1)))
    error = np.abs(np.array(played) - actions) / SCALE
    assert error.min() > 0
    assert error.max() < 3
    assert len(demonstrate(ToyEnv(length=9), expert, 3, 0.5, max_steps=2)[0]) == 2


def test_windows_hold_what_followed_and_nothing_is_learnt_beyond_the_end() -> None:
    policy = toy_policy(horizon=3)
    actions = np.array([[0.01, 1.0], [0.02, 1.0], [0.03, -1.0]], np.float32)
    windows = windows_of(policy, [([toy_observation(seed) for seed in (0, 2, 4)], actions)])
    expected = [[[0.1, 1], [0.2, 1], [0.3, -1]], [[0.2, 1], [0.3, -1], [0.3, -1]], [[0.3, -1]] * 3]
    np.testing.assert_allclose(windows.actions, expected, rtol=1e-6)
    assert windows.valid.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    np.testing.assert_array_equal(windows.features[1], policy.features(toy_observation(2).state[None])[0])
    assert windows.weight.tolist() == [1.0] * 3


def test_a_policy_that_is_taught_does_as_the_expert(tmp_path: Path) -> None:
    heard, config = Heard(), SftConfig(demonstrations=2, steps=150, batch_size=32, learning_rate=3e-3)
    version = sft(tmp_path / "out", toy_card(), make_toy(length=8), expert, 8, config, 0, heard)
    made = FlowPolicy.load(tmp_path / "out")
    assert made.version == version
    assert (made.card.lineage["method"], made.card.lineage["seed"]) == ("sft", "0")
    losses = [numbers["loss"] for numbers in heard.numbers]
    assert losses[-1] < 0.5 * losses[0], losses
    actions = np.stack([made.sample(toy_observation(9), explore=False, seed=seed).chain[-1] for seed in range(8)])
    untaught = np.stack([toy_policy().sample(toy_observation(9), explore=False, seed=s).chain[-1] for s in range(8)])
    assert np.abs(actions[:, 0] - BEST).mean() < 0.3 * np.abs(untaught[:, 0] - BEST).mean()


def test_the_same_seed_gives_the_same_checkpoint_and_a_base_is_gone_on_from(tmp_path: Path) -> None:
    config = SftConfig(demonstrations=1, steps=3, batch_size=8)
    runs = [("a", 0, None), ("b", 0, None), ("c", 1, None), ("d", 0, save_toy(tmp_path / "base", seed=5))]
    versions = [
        sft(tmp_path / name, toy_card(), make_toy(length=3), expert, 3, config, seed, Heard(), base)
        for name, seed, base in runs
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3
    assert FlowPolicy.load(tmp_path / "d").card.lineage["parent"] == checkpoint_version(tmp_path / "base")


def test_a_base_learns_another_task_beside_its_own(tmp_path: Path) -> None:
    """RL needs every sentence of the task, though two demonstrations say two of them."""
    base, config = save_toy(tmp_path / "base"), SftConfig(demonstrations=1, steps=1, batch_size=8)
    card = toy_card(task="other", instructions=("never said", toy_card().instructions[0]), horizon=8)
    sft(tmp_path / "out", card, make_toy(length=3), expert, 3, config, 0, Heard(), base)
    found = FlowPolicy.load(tmp_path / "out").card
    assert found.instructions == (*toy_card().instructions, "never said")
    assert (found.task, found.model.horizon) == ("other", toy_card().model.horizon)


def test_a_cancelled_run_saves_what_it_has(tmp_path: Path) -> None:
    heard, config = Heard(cancel_after=1), SftConfig(demonstrations=1, steps=1000, batch_size=8)
    sft(tmp_path / "out", toy_card(), make_toy(length=3), expert, 3, config, 0, heard)
    assert heard.reports == [(25, 1000)]
    FlowPolicy.load(tmp_path / "out")


def test_unknown_presets_and_too_many_demonstrations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset 'huge' is not known; there are: tiny-state, tiny, smolvla-tiny-state"):
        new_card("huge", "t", CONTRACT, ("go",))
    with pytest.raises(ValueError, match="1001 demonstrations, there are 1000 reserved seeds"):
        sft(tmp_path, toy_card(), make_toy(), expert, 1, SftConfig(demonstrations=1001), 0, Heard())


@pytest.mark.slow
@pytest.mark.sim
def test_two_demonstrations_in_maniskill_lower_the_loss_and_evaluation_agrees_with_one_process(tmp_path: Path) -> None:
    """The real thing, small: scripted expert, lean stepper, a checkpoint, an episode in a worker."""
    heard, task = Heard(), "PushCube-v1"
    config = SftConfig(demonstrations=2, steps=50, batch_size=64)
    contract, instructions = simulation.contract(), simulation.instructions(task)
    card = replace(new_card("tiny-state", task, contract, instructions), name="small")
    make, steps = partial(simulation.fast_env, task), simulation.max_steps(task)
    sft(tmp_path / "out", card, make, simulation.expert(task), steps, config, 0, heard)
    losses = [numbers["loss"] for numbers in heard.numbers]
    assert losses[-1] < 0.8 * losses[0], losses
    seeds = [1]
    assert not set(seeds) & set(DEMONSTRATION)
    policy, env = FlowPolicy.load(tmp_path / "out"), make()
    here = {seed: rollout(env, LocalPolicy(policy, seed * 1000), seed, steps) for seed in seeds}
    env.close()
    there = evaluate(tmp_path / "out", make, steps, seeds, Heard(), workers=1)
    for seed in seeds:
        assert (there[seed].success, there[seed].steps) == (here[seed].success, here[seed].steps)
        assert there[seed].total_reward == here[seed].total_reward
