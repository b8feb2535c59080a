"""The default recipe is what it was: the same seed makes the same updates as when they were recorded.

Numbers, not bits: processors round differently, 1e-5 apart in what is recorded here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy_arm import Heard, make_toy, save_toy

from pirl_server.config.training import PpoConfig
from pirl_server.training.sim_rl.finetune import finetune

CONFIG = PpoConfig(
    env_steps=150, envs=4, workers=2, decisions=12, warmup_updates=1, epochs=2, minibatch=16, actor_learning_rate=1e-3
)
RECORDED = {
    False: {
        "episode_return": -13.96465, "actor_steps": 4, "approx_kl": 0.332191, "kl_k1": 0.175599, "clip_fraction": 0.625,
        "ess": 0.415534, "actor_grad_norm": 6.036028, "critic_grad_norm": 55.484504, "policy_loss": -0.00982757,
        "value_loss": 48.891003,
    },
    True: {
        "episode_return": -21.01293, "actor_steps": 3, "approx_kl": 0.156067, "kl_k1": 0.282532,
        "clip_fraction": 0.5625, "ess": 0.814982, "actor_grad_norm": 6.145356, "critic_grad_norm": 86.816556,
        "policy_loss": -0.02111594, "value_loss": 97.951775,
    },
}  # fmt: skip
"""without and with a camera: what the second update says, which has seen the first"""


def second_update(folder: Path, sees: bool, config: PpoConfig) -> dict[str, float]:
    heard = Heard()
    base = save_toy(folder / "base", horizon=2, sees=sees)
    finetune(base, folder / "out", make_toy(length=5, sees=sees), 5, config, seed=3, progress=heard)
    assert [numbers["actor_steps"] > 0 for numbers in heard.numbers] == [True, True], "two updates"
    return {name: heard.numbers[1][name] for name in RECORDED[sees]}


@pytest.mark.slow
@pytest.mark.parametrize("sees", [False, True])
def test_the_default_recipe_makes_the_recorded_updates(tmp_path: Path, sees: bool) -> None:
    assert second_update(tmp_path, sees, CONFIG) == pytest.approx(RECORDED[sees], rel=1e-3)


@pytest.mark.slow
def test_another_recipe_does_not(tmp_path: Path) -> None:
    """One setting changed by one part in a hundred shows."""
    found = second_update(tmp_path, False, replace(CONFIG, gae_lambda=CONFIG.gae_lambda * 0.99))
    assert found != pytest.approx(RECORDED[False], rel=1e-3)
