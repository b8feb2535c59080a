"""Vision, pixel shuffle and language of ours against transformers' SmolVLM: a second oracle beside lerobot's numbers.

Both attend in both directions here, as SmolVLA does; transformers' own SmolVLM is causal.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
from scenes import draw_batch, draw_config, draw_model

from pirl_server.interchange.checkpoints.smolvla_names import VLM, to_lerobot
from pirl_server.model.layers.siglip import image_tokens
from pirl_server.model.layers.tower_config import TowerConfig
from pirl_server.model.smolvla.config import SmolVlaConfig

VERSION = importlib.metadata.version("transformers") if importlib.util.find_spec("transformers") else "none"
pytestmark = pytest.mark.skipif(not VERSION.startswith("5."), reason=f"transformers 5 is needed, found {VERSION}")


def build(config: SmolVlaConfig) -> Any:
    """SmolVLM's model of the same sizes, without its language head."""
    from transformers import SmolVLMConfig, SmolVLMModel

    assert config.vision is not None
    vision = config.vision
    text = {
        "model_type": "llama", "hidden_size": config.vlm.width, "intermediate_size": config.vlm.mlp_dim,
        "num_hidden_layers": config.depth, "num_attention_heads": config.heads, "head_dim": config.head_dim,
        "num_key_value_heads": config.kv_heads, "vocab_size": config.vocabulary, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}, "pad_token_id": 0,
    }  # fmt: skip
    vit = {
        "hidden_size": vision.width, "intermediate_size": vision.mlp_dim, "num_hidden_layers": vision.depth,
        "num_attention_heads": vision.heads, "patch_size": vision.patch_px, "image_size": vision.image_px,
    }  # fmt: skip
    settings = SmolVLMConfig(vision_config=vit, text_config=text, scale_factor=config.pixel_shuffle, pad_token_id=0)
    settings._attn_implementation = "eager"
    return SmolVLMModel(settings).eval()


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_same_image_tokens_keys_and_values(seed: int) -> None:
    drawn = draw_config(seed, "smolvla")
    assert isinstance(drawn, SmolVlaConfig)
    # transformers insists on a width that its heads divide
    config = replace(drawn, vlm=TowerConfig(5 * drawn.heads, drawn.vlm.mlp_dim))
    ours, theirs = draw_model(config, seed, torch.float32), build(config)
    names = {key.removeprefix(VLM): value for key, value in to_lerobot(ours.state_dict()).items() if VLM in key}
    missing, unexpected = theirs.load_state_dict(names, strict=False)
    assert not missing
    assert not unexpected
    batch = draw_batch(config, seed, 2, cameras=2).float()
    everywhere = torch.ones_like(batch.image_mask)
    features, _ = image_tokens(ours.vision, ours.connector, batch.images, everywhere, static=True)
    mask = torch.ones(4, *[config.vision.image_px // config.vision.patch_px] * 2, dtype=torch.bool)  # type: ignore[union-attr]
    seen = theirs.vision_model(pixel_values=batch.images.flatten(0, 1), patch_attention_mask=mask).last_hidden_state
    torch.testing.assert_close(features.flatten(), theirs.connector(seen).flatten(), atol=1e-5, rtol=1e-4)
    x, exists = ours.embed_prefix(batch.images, everywhere, batch.tokens, torch.ones_like(batch.token_mask))
    cache = theirs.text_model(
        inputs_embeds=x, attention_mask=torch.zeros(2, 1, x.shape[1], x.shape[1]), use_cache=True
    ).past_key_values
    prefix = ours.encode_prefix(batch.images, everywhere, batch.tokens, torch.ones_like(batch.token_mask), pooled=True)
    assert bool(exists.all())
    for layer, (keys, values) in enumerate(zip(prefix.keys, prefix.values)):
        torch.testing.assert_close(keys, cache.layers[layer].keys, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(values, cache.layers[layer].values, atol=1e-4, rtol=1e-4)
    whole = theirs.text_model(inputs_embeds=x, attention_mask=torch.zeros(2, 1, x.shape[1], x.shape[1]))
    torch.testing.assert_close(prefix.pooled, whole.last_hidden_state.mean(dim=1), atol=1e-4, rtol=1e-4)
