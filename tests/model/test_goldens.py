"""Every family against the numbers of an independent implementation, recorded in golden/*.safetensors.

Negative controls break one thing each and must be noticed by a hundred times the gate.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pirl_server.algorithm.flow import euler_chain
from pirl_server.interchange.parity.golden import Golden, load_golden
from pirl_server.interchange.parity.parity import LOSS_GATE, SAMPLE_GATE, compare
from pirl_server.model.layers.norm import AdaRMSNorm
from pirl_server.model.pi0 import pi0, suffix

FOLDER = Path(__file__).parent / "golden"
BROKEN = 1e-3
FAMILIES = ("pi0", "pi05", "smolvla")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_golden(FOLDER / f"{request.param}_tiny.safetensors")


every = pytest.mark.parametrize("golden", FAMILIES, indirect=True)
both = pytest.mark.parametrize("golden", ["pi0", "pi05"], indirect=True)
only = {family: pytest.mark.parametrize("golden", [family], indirect=True) for family in FAMILIES}


@torch.no_grad()
def sample_error(golden: Golden, steps: int, *, static: bool = False) -> float:
    prefix = golden.model.encode_prefix(**golden.prefix, static=static)  # type: ignore[arg-type]
    ours = euler_chain(golden.model.denoiser(prefix, golden.state, steps), golden.noise, steps)[:, -1]
    return float((ours - golden.samples[steps]).abs().max())


@every
def test_samples_and_loss_match(golden: Golden) -> None:
    differences = compare(golden)
    assert set(differences) == {"loss", "sample_1", "sample_4", "sample_10"}
    assert differences.pop("loss") <= LOSS_GATE
    assert max(differences.values()) <= SAMPLE_GATE


@every
def test_static_shapes_change_nothing(golden: Golden) -> None:
    """Masks alone instead of cutting what does not exist; three rows of one golden file differ in both."""
    assert not bool(golden.prefix["image_mask"].all())  # type: ignore[union-attr]
    assert sample_error(golden, 4, static=True) <= SAMPLE_GATE


@every
def test_unscaled_text_embedding_is_noticed(golden: Golden) -> None:
    golden.model.embed_tokens.weight.data /= golden.model.config.vlm.width**0.5
    assert sample_error(golden, 4) > BROKEN


@both
def test_positions_that_count_padding_are_noticed(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(mask_BT: Tensor) -> Tensor:
        return torch.arange(mask_BT.shape[1]).expand_as(mask_BT)

    monkeypatch.setattr(pi0, "positions", counted)
    assert sample_error(golden, 4, static=True) > BROKEN


@only["pi0"]
def test_a_state_that_sees_actions_is_noticed(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix, "hide_actions_from_state", lambda bias, actions, group: bias)
    assert sample_error(golden, 4) > BROKEN


@only["pi05"]
def test_unmodulated_norms_are_noticed(golden: Golden) -> None:
    for norm in [each for each in golden.model.modules() if isinstance(each, AdaRMSNorm)]:
        norm.dense.weight.data.zero_()
        norm.dense.bias.data.zero_()
    assert sample_error(golden, 4) > BROKEN


@only["pi05"]
def test_a_missing_second_silu_is_noticed(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def first_only(x: Tensor) -> Tensor:
        calls.append(x)
        return torch.nn.functional.silu(x) if len(calls) == 1 else x

    monkeypatch.setattr(pi0, "silu", first_only)
    assert sample_error(golden, 4) > BROKEN
    assert len(calls) == 2  # once per chunk, for all its times
