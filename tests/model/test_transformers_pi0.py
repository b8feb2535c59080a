"""Ours against transformers' own PI0, which knows pi0 only.

Its time embedding is float32 where openpi's and ours is float64, so weights are kept small enough for the gates.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from scenes import Batch, draw_batch, draw_config, draw_model

from pirl_server.interchange.checkpoints.weight_dialects import from_transformers
from pirl_server.interchange.checkpoints.weight_names import from_openpi, to_openpi
from pirl_server.model.pi0.pi0 import Pi0

if TYPE_CHECKING:
    from pirl_server.model.pi0.config import Pi0Config

VERSION = importlib.metadata.version("transformers") if importlib.util.find_spec("transformers") else "none"
pytestmark = pytest.mark.skipif(not VERSION.startswith("5."), reason=f"transformers 5 is needed, found {VERSION}")
IMAGE_TOKEN = 31


def build(config: Pi0Config) -> Any:
    """transformers' PI0 of the same sizes, one word more for the place of an image token."""
    from transformers import PI0Config, PI0ForConditionalGeneration

    assert config.vision is not None
    vision = config.vision
    shared = {"model_type": "gemma", "num_hidden_layers": config.depth, "num_attention_heads": config.heads}
    shared |= {"num_key_value_heads": config.kv_heads, "head_dim": config.head_dim, "vocab_size": config.vocabulary}
    text, expert = (
        {**shared, "hidden_size": tower.width, "intermediate_size": tower.mlp_dim}
        for tower in (config.vlm, config.expert)
    )
    vit = {
        "model_type": "siglip_vision_model",
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp_dim,
        "num_hidden_layers": vision.depth,
        "num_attention_heads": vision.heads,
        "patch_size": vision.patch_px,
        "image_size": vision.image_px,
        "vision_use_head": False,
    }
    paligemma = {"model_type": "paligemma", "text_config": text, "vision_config": vit}
    settings = PI0Config(
        vlm_config={**paligemma, "projection_dim": config.vlm.width, "image_token_index": IMAGE_TOKEN},
        dit_config=expert,
        chunk_size=config.horizon,
        max_state_dim=config.state_dim,
        max_action_dim=config.action_dim,
        image_token_id=IMAGE_TOKEN,
    )
    return PI0ForConditionalGeneration(settings).eval()


def sample_theirs(theirs: Any, batch: Batch, patches: int, steps: int) -> torch.Tensor:
    """Image tokens stand where images are: present ones first, since its prompt has no place for absent ones."""
    rows = []
    for present, tokens, real in zip(batch.image_mask, batch.tokens, batch.token_mask):
        words = [IMAGE_TOKEN] * (patches * int(present.sum())) + tokens[real].tolist()
        rows.append(words)
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    exists = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return theirs.sample_actions(  # type: ignore[no-any-return]
        state=batch.state,
        input_ids=ids,
        pixel_values=batch.images,
        noise=batch.x,
        attention_mask=exists,
        pixel_attention_mask=batch.image_mask,
        num_steps=steps,
    )


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_same_samples(seed: int) -> None:
    config = replace(draw_config(seed, "pi0"), vocabulary=IMAGE_TOKEN + 1)
    theirs = build(config)
    ours = draw_model(config, seed, torch.float32)
    for parameter in ours.parameters():
        parameter.mul_(0.5)
    back = {ours_name: name for name, ours_name in zip(theirs.state_dict(), from_transformers(theirs.state_dict()))}
    weights = {back[key]: value for key, value in to_openpi(ours.state_dict()).items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert missing == ["model.dit.embed_tokens.weight"]
    assert not unexpected
    again = Pi0(config).eval()
    again.load_state_dict(from_openpi(from_transformers(theirs.state_dict())))
    batch = draw_batch(config, seed, 3, cameras=3).float()
    batch = replace(batch, tokens=batch.tokens.clamp(max=IMAGE_TOKEN - 1))
    assert config.vision is not None
    prefix = again.encode_prefix(*batch.prefix())
    for steps in (1, 4, 10):
        expected = sample_theirs(theirs, batch, config.vision.patches, steps)
        chunk = again.denoiser(prefix, batch.state, steps).sample(batch.x)
        torch.testing.assert_close(chunk, expected, atol=1e-5, rtol=0.0)
