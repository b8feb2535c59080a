"""transformers 5.5's PI0 as a peer: stock, default attention (SDPA), its own `sample_actions`. pi0 only."""

from __future__ import annotations

from typing import Any

import torch
from case import Case, Scene
from serve import serve
from torch import Tensor
from transformers import PI0Config, PI0ForConditionalGeneration

RENAMES = (
    ("paligemma_with_expert.paligemma.model.", "model.vlm."),
    ("paligemma_with_expert.gemma_expert.model.", "model.dit."),
    ("action_in_proj", "embed_action_time.action_in_proj"),
    ("state_proj", "embed_action_time.state_proj"),
    ("action_time_mlp", "embed_action_time.action_time_mlp"),
)


def config(case: Case) -> PI0Config:
    """Its configuration with the case's sizes."""

    def gemma(part: str) -> dict[str, Any]:
        sizes = case.sizes(part)
        return {
            "model_type": "gemma", "hidden_size": sizes["width"], "intermediate_size": sizes["mlp_dim"],
            "num_hidden_layers": sizes["depth"], "num_attention_heads": sizes["num_heads"],
            "num_key_value_heads": sizes["num_kv_heads"], "head_dim": sizes["head_dim"],
            "vocab_size": case.number("vocab"),
        }  # fmt: skip

    vision = {"model_type": "siglip_vision_model", "image_size": case.number("image_px"), "vision_use_head": False}
    vlm = {
        "model_type": "paligemma", "text_config": gemma("vlm"), "vision_config": {**vision, **case.sizes("vit")},
        "projection_dim": case.sizes("vlm")["width"], "image_token_id": case.number("vocab"),
    }  # fmt: skip
    return PI0Config(
        vlm_config=vlm,
        dit_config=gemma("expert"),
        chunk_size=case.number("horizon"),
        max_state_dim=case.number("state_dim"),
        max_action_dim=case.number("action_dim"),
    )


class TransformersPi0:
    """`serve.Model`."""

    def __init__(self, case: Case) -> None:
        self.case, self.model = case, PI0ForConditionalGeneration(config(case)).eval()
        weights = {}
        for name, value in case.weights.items():
            for theirs, ours in RENAMES:
                name = name.replace(theirs, ours)
            weights[name] = value
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        # The expert's token table is built but never read.
        assert missing + unexpected == ["model.dit.embed_tokens.weight"], (missing, unexpected)

    def prepare(self, scene: Scene) -> dict[str, Tensor]:
        """As its processor lays a scene out: image placeholders first, absent cameras left out."""
        images = [image for image, present in zip(scene.images, scene.present) if present]
        patches = (self.case.number("image_px") // self.case.sizes("vit")["patch_size"]) ** 2
        placeholders = torch.full((1, patches * len(images)), self.case.number("vocab"))
        return {
            "state": scene.state,
            "noise": scene.noise,
            "pixel_values": torch.stack(images, dim=1),
            "pixel_attention_mask": torch.ones(1, len(images), dtype=torch.bool),
            "input_ids": torch.cat([placeholders, scene.tokens], dim=1),
            "attention_mask": torch.cat([torch.ones_like(placeholders), scene.token_mask.long()], dim=1),
        }

    def sample(self, prepared: dict[str, Tensor], steps: int) -> Tensor:
        chunk: Tensor = self.model.sample_actions(**prepared, num_steps=steps)
        return chunk


serve(TransformersPi0)
