"""A checkpoint is served in whatever dtypes its tensors have: all narrow, or one half of the model narrower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pretrained import small_card, small_observation, small_weights

from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.smolvla.smolvla import SmolVla
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample, PreviousChunk

PROJECTIONS = ("state_proj.", "action_", "time_mlp_")
NARROW = {
    "all": ("",), "the expert": ("expert.",), "vision and language": Pi0.VLM_PARTS + SmolVla.VLM_PARTS,
    "projections": PROJECTIONS,
}  # fmt: skip
"""how the names of the tensors begin that are narrow"""


def served(folder: Path, prompt: Any, start: tuple[str, ...], dtype: torch.dtype) -> FlowPolicy:
    """The small policy from disk, the tensors that begin so in another dtype."""
    card = small_card(prompt, prefix_delay=2)
    weights = small_weights(card).state_dict()
    narrow = {name for name in weights if name.startswith(start)}
    stored = {name: each.to(dtype) if name in narrow else each for name, each in weights.items()}
    save_checkpoint(folder, card, stored)
    return FlowPolicy.load(folder)


def chunk(policy: FlowPolicy, explore: bool, method: str | None) -> PolicySample:
    past = PreviousChunk(np.full((3, 3), 0.01, np.float32), 1, method, "c1") if method else None  # type: ignore[arg-type]
    (sample,) = policy.sample_batch([PolicyRequest(small_observation(), explore, 5, past)])
    assert isinstance(sample, PolicySample), sample
    return sample


@pytest.mark.parametrize("prompt", ["pi0", "pi05", "smolvla"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("which", NARROW)
def test_chunks_are_near_those_of_float32(prompt: str, dtype: torch.dtype, which: str, tmp_path: Path) -> None:
    exact, rough = served(tmp_path / "a", prompt, (), dtype), served(tmp_path / "b", prompt, NARROW[which], dtype)
    assert any(each.dtype == dtype for each in rough.model.parameters())
    for explore, method in ((False, None), (True, None), (False, "guided"), (False, "prefix")):
        wide, narrow = (chunk(policy, explore, method) for policy in (exact, rough))
        assert narrow.chain.dtype == narrow.actions.dtype == np.float32
        difference = np.abs(narrow.chain - wide.chain).max()
        assert 0 < difference < 100 * torch.finfo(dtype).eps * np.abs(wide.chain).max(), (explore, method)
        if explore:
            np.testing.assert_allclose(narrow.log_prob, wide.log_prob, atol=1e-4)


def test_smolvla_s_base_has_wide_projections_between_narrow_ones(tmp_path: Path) -> None:
    """The cross-attention's keys and values in float32, all around them in bfloat16."""
    exact = served(tmp_path / "a", "smolvla", (), torch.bfloat16)
    names = exact.model.state_dict()
    narrow = tuple(name for name in names if "cross_attn.k_proj" not in name and "cross_attn.v_proj" not in name)
    assert len(narrow) == len(names) - 2
    rough = served(tmp_path / "b", "smolvla", narrow, torch.bfloat16)
    wide, other = (chunk(policy, explore=False, method=None) for policy in (exact, rough))
    difference = np.abs(other.chain - wide.chain).max()
    assert 0 < difference < 100 * torch.finfo(torch.bfloat16).eps * np.abs(wide.chain).max()
