"""The default recipe is what it was: the same seed gives the same weights, bit for bit, as when this was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from toy_arm import Heard, make_toy, save_toy

from pirl_server.policy.checkpoint import load_checkpoint
from pirl_server.training.config import PpoConfig
from pirl_server.training.finetune_sim import finetune

CONFIG = PpoConfig(
    env_steps=150, envs=4, workers=2, decisions=12, warmup_updates=1, epochs=2, minibatch=16, actor_learning_rate=1e-3
)
RECORDED_WITH, ROUNDING = "2.13.0", "6643bf3af0ed5824"
RECORDED = {
    False: ("0ef76628af0395ad", "c6839a1b550d06d5", "82e438e822ce6f66"),
    True: ("51aa68f1791696ab", "99f59c807be83fa3", "00c8691008a0e6ee"),
}
"""with and without a camera: weights before, after, and the critic's; taken before samplers could be chosen"""


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def rounding() -> str:
    """What this machine's kernels make of a few numbers: another processor may add in another order."""
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.silu(a @ a.T / 8).exp().softmax(-1) @ a
    numbers = torch.cat([x.flatten(), x.std()[None], torch.tanh(a).sum()[None]]).numpy()
    return hashlib.sha256(numbers.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("sees", [False, True])
def test_the_default_recipe_gives_the_recorded_weights(tmp_path: Path, sees: bool) -> None:
    if torch.__version__.partition("+")[0] != RECORDED_WITH:
        pytest.skip(f"recorded with torch {RECORDED_WITH}, this is {torch.__version__}")
    if rounding() != ROUNDING:
        pytest.skip("this processor's kernels round otherwise than where the weights were recorded")
    base = save_toy(tmp_path / "base", horizon=2, sees=sees)
    heard = Heard()
    finetune(base, tmp_path / "out", make_toy(length=5, sees=sees), 5, CONFIG, seed=3, progress=heard)
    assert [numbers["actor_steps"] > 0 for numbers in heard.numbers] == [True, True], "two updates"
    _, before, _ = load_checkpoint(base)
    _, after, critic = load_checkpoint(tmp_path / "out")
    assert critic is not None
    assert (digest(before), digest(after), digest(critic)) == RECORDED[sees]
