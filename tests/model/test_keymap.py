"""Names of weights, there and back, and what is not known keeps its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scenes import draw_config, draw_model
from torch import Tensor

from pirl_server.interchange.checkpoints.weight_dialects import (
    EMBEDDING,
    HEAD,
    from_old_nesting,
    from_transformers,
    tied_embedding,
    to_openpi_names,
    without_model,
)
from pirl_server.interchange.checkpoints.weight_names import UNUSED, from_openpi, to_openpi
from pirl_server.model.pi0.config import Family

FOLDER = Path(__file__).parent / "golden"
families = pytest.mark.parametrize("family", ["pi0", "pi05"])


def recorded(family: str) -> dict[str, Tensor]:
    """An independent implementation's state dict."""
    tensors = load_file(FOLDER / f"{family}_tiny.safetensors")
    return {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@families
def test_there_and_back_is_the_same_to_the_last_bit(family: str) -> None:
    weights = recorded(family)
    back = to_openpi(from_openpi(weights))
    assert_same(back, {key: value for key, value in weights.items() if key not in UNUSED})


@families
@pytest.mark.parametrize("seed", range(4))
def test_back_and_there_at_other_head_counts(seed: int, family: Family, tmp_path: Path) -> None:
    """Through a file, as an export goes."""
    state_dict = draw_model(draw_config(seed, family), seed).state_dict()
    save_file(to_openpi(state_dict), tmp_path / "weights.safetensors")
    assert_same(from_openpi(load_file(tmp_path / "weights.safetensors")), dict(state_dict))


@pytest.mark.parametrize(
    "key",
    [
        "paligemma_with_expert.paligemma.model.language_model.layers.0.mlp.side_proj.weight",
        "paligemma_with_expert.gemma_expert.model.layers.x.mlp.down_proj.weight",
        "paligemma_with_expert.gemma_expert.model.layers.0.self_attn.k_proj.weight",
        "optimizer.mlp.step",
    ],
)
def test_unknown_and_incomplete_keys_keep_their_names(key: str) -> None:
    assert set(from_openpi({key: torch.zeros(2, 2)})) == {key}


def test_projections_that_do_not_fit_are_named() -> None:
    weights = recorded("pi0")
    key = "paligemma_with_expert.gemma_expert.model.layers.1.self_attn.k_proj.weight"
    weights[key] = torch.zeros(16, 31)
    with pytest.raises(ValueError, match=r"gemma_expert\.model\.layers\.1\.self_attn\.q_proj\.weight"):
        from_openpi(weights)


def nested_as_before(key: str) -> str:
    """Name of a weight in a file written with transformers 4.51."""
    part = "paligemma_with_expert.paligemma."
    key = key.replace(part + "lm_head.", part + "language_model.lm_head.")
    key = key.replace(part + "model.language_model.", part + "language_model.model.")
    return key.replace(part + "model.", part)


@families
def test_every_layout_becomes_openpi_s(family: str) -> None:
    weights = recorded(family)
    assert_same(to_openpi_names({"model." + key: value for key, value in weights.items()}), weights)
    older = {nested_as_before(key): value for key, value in weights.items()}
    assert len(set(older) & set(weights)) < len(weights) / 2
    assert_same(from_old_nesting(older), weights)
    assert_same(to_openpi_names({"model." + key: value for key, value in older.items()}), weights)


def test_transformers_names() -> None:
    names = [
        "model.vlm.multi_modal_projector.linear.bias",
        "model.dit.norm.weight",
        "embed_action_time.state_proj.bias",
    ]
    theirs = {name: torch.zeros(1) for name in [*names, "action_out_proj.bias", "odd"]}
    assert without_model(theirs) == theirs
    assert set(from_transformers(theirs)) == {
        "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.bias",
        "paligemma_with_expert.gemma_expert.model.norm.weight",
        "state_proj.bias",
        "action_out_proj.bias",
        "odd",
    }


def test_the_embedding_is_tied_to_the_head() -> None:
    table = torch.randn(3, 2)
    assert torch.equal(tied_embedding({HEAD: table})[EMBEDDING], table)
    assert set(tied_embedding({EMBEDDING: table})) == {EMBEDDING}
    with pytest.raises(ValueError, match="are tied but differ"):
        tied_embedding({HEAD: table, EMBEDDING: table + 1})
