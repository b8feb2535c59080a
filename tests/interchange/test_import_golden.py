"""Through the front door: folders as openpi and lerobot write them, imported, loaded, sampled: the recorded numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import EMBEDDING, HEAD, golden, make, openpi_folder, request, shard, weights_of
from safetensors.torch import load_file, save_file

from pirl_server.algorithm.flow import euler_chain
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.source_metadata import Stack
from pirl_server.model import families
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint

SAMPLE_TOLERANCE = 1e-5
STACKS, FAMILIES = ("openpi", "lerobot"), ("pi0", "pi05")
CASES = [*((stack, family) for stack in STACKS for family in FAMILIES), ("lerobot", "smolvla")]


@torch.no_grad()
def sample_error(folder: Path, family: str) -> float:
    card, weights, _ = load_checkpoint(folder)
    model = families.build(card.model)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    model.eval()
    data = golden(family, "in/")
    images = torch.stack([data[f"image_{camera}"] for camera in range(3)], dim=1)
    prefix = model.encode_prefix(images, data["image_mask"], data["tokens"], data["token_mask"])
    velocity: Any = partial(model.velocity, prefix, data["state"] if card.model.state_token else None)
    actions = euler_chain(velocity, data["noise"], 10)[:, -1]
    return float((actions - golden(family, "out/")["sample_10"]).abs().max())


@pytest.mark.parametrize(("stack", "family"), CASES)
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "sharded"])
def test_an_imported_checkpoint_samples_the_recorded_numbers(
    tmp_path: Path, stack: Stack, family: str, sharded: bool
) -> None:
    source = make(stack, tmp_path / "source", family)
    if sharded:
        shard(source)
    card, version = import_checkpoint(request(stack, source, tmp_path / "out", family))
    assert card.family == family
    assert version == checkpoint_version(tmp_path / "out")
    assert sample_error(tmp_path / "out", family) <= SAMPLE_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_another_weight_is_another_sample(tmp_path: Path, family: str) -> None:
    """Negative control of the test above."""
    weights = weights_of(family)
    weights["action_in_proj.weight"] = weights["action_in_proj.weight"] * 1.1
    openpi_folder(tmp_path / "source", family, weights)
    import_checkpoint(request("openpi", tmp_path / "source", tmp_path / "out", family))
    assert sample_error(tmp_path / "out", family) > 100 * SAMPLE_TOLERANCE


def older_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As transformers before 4.52 nested them."""
    nested, renamed = "paligemma_with_expert.paligemma.", {}
    for name, value in weights.items():
        for now, older in (
            ("lm_head.", "language_model.lm_head."),
            ("model.language_model.", "language_model.model."),
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
        ):
            if name.startswith(nested + now):
                name = nested + older + name.removeprefix(nested + now)
                break
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("family", FAMILIES)
def test_older_nesting_is_the_same_policy(tmp_path: Path, family: str) -> None:
    older = older_names(weights_of(family))
    assert older.keys() != weights_of(family).keys()
    openpi_folder(tmp_path / "source", family, older)
    import_checkpoint(request("openpi", tmp_path / "source", tmp_path / "out", family))
    assert sample_error(tmp_path / "out", family) <= SAMPLE_TOLERANCE


@pytest.mark.parametrize("kept", [(HEAD,), (EMBEDDING,), (HEAD, EMBEDDING)], ids=["head", "embedding", "both"])
def test_the_text_embedding_is_taken_under_either_name(tmp_path: Path, kept: tuple[str, ...]) -> None:
    weights = weights_of("pi0")
    text = weights.pop(HEAD)
    openpi_folder(tmp_path / "source", "pi0", weights | {name: text.clone() for name in kept})
    import_checkpoint(request("openpi", tmp_path / "source", tmp_path / "out", "pi0"))
    assert torch.equal(load_checkpoint(tmp_path / "out")[1]["embed_tokens.weight"], text)


def test_types_are_kept_unless_a_cast_is_asked_for(tmp_path: Path) -> None:
    """openpi's bfloat16 files keep norms in float32."""
    mixed = {
        name: value.bfloat16() if "_proj.weight" in name else value for name, value in weights_of("pi0").items()
    }  # fmt: skip
    openpi_folder(tmp_path / "source", "pi0", mixed)
    asked = request("openpi", tmp_path / "source", tmp_path / "out", "pi0")
    import_checkpoint(asked)
    weights = load_checkpoint(tmp_path / "out")[1]
    assert weights["language.layers.0.self_attn.qkv_proj.weight"].dtype == torch.bfloat16
    assert weights["language.norm.weight"].dtype == torch.float32
    import_checkpoint(replace(asked, out=tmp_path / "cast", dtype=torch.bfloat16))
    cast = load_checkpoint(tmp_path / "cast")[1]
    assert {tensor.dtype for tensor in cast.values()} == {torch.bfloat16}
    assert all(torch.equal(cast[name], tensor.bfloat16()) for name, tensor in weights.items())


def test_the_vocabulary_of_types_is_closed(tmp_path: Path) -> None:
    source = openpi_folder(tmp_path / "source", "pi0")
    weights = load_file(source / "model.safetensors")
    weights["state_proj.bias"] = weights["state_proj.bias"].double()
    save_file(weights, source / "model.safetensors")
    with pytest.raises(ValueError, match=r"'state_proj\.bias' is F64"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi0"))
    assert not (tmp_path / "out").exists()
