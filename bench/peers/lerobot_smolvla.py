"""lerobot 0.6.1's VLAFlowMatching as a peer: stock but for the sizes, through `sample_actions`.

It reads its backbone's sizes and tokenizer from the hub; here they come from the case. Its computation is left alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from case import Case, Scene
from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from torch import Tensor
from transformers import SmolVLMConfig

SPECIAL = SimpleNamespace(fake_image_token_id=0, global_image_token_id=0)


def backbone(case: Case) -> SmolVLMConfig:
    """SmolVLM of the case's sizes."""
    vlm, vit = case.sizes("vlm"), case.sizes("vit")
    text = {
        "model_type": "llama", "hidden_size": vlm["width"], "intermediate_size": vlm["mlp_dim"],
        "num_hidden_layers": vlm["depth"], "num_attention_heads": vlm["num_heads"], "head_dim": vlm["head_dim"],
        "num_key_value_heads": vlm["num_kv_heads"], "vocab_size": case.number("vocab"), "rms_norm_eps": 1e-5,
        "pad_token_id": 0,
    }  # fmt: skip
    vision = {**vit, "image_size": case.number("image_px")}
    return SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=case.number("pixel_shuffle"))


class LerobotSmolVla:
    """`serve.Model`."""

    def __init__(self, case: Case) -> None:
        vlm, expert = case.sizes("vlm"), case.sizes("expert")
        local = SimpleNamespace(from_pretrained=lambda name: backbone(case))
        smolvlm_with_expert.AutoConfig = local
        smolvlm_with_expert.AutoProcessor = SimpleNamespace(
            from_pretrained=lambda name: SimpleNamespace(tokenizer=SPECIAL)
        )
        # its rule for the expert's MLP has no parameter
        smolvlm_with_expert.get_intermediate_size = lambda width: expert["mlp_dim"]
        self.config = SmolVLAConfig(
            chunk_size=case.number("horizon"),
            n_action_steps=case.number("horizon"),
            max_state_dim=case.number("state_dim"),
            max_action_dim=case.number("action_dim"),
            num_vlm_layers=vlm["depth"],
            expert_width_multiplier=(expert["width"] + 0.5) / vlm["width"],
            load_vlm_weights=False,
            device="cpu",
        )
        self.model = modeling_smolvla.VLAFlowMatching(self.config).eval()
        head = "vlm_with_expert.vlm.lm_head.weight"
        weights = case.weights | {head: torch.zeros(case.number("vocab"), vlm["width"])}
        self.model.load_state_dict(weights, assign=True)

    def prepare(self, scene: Scene) -> tuple[Any, ...]:
        """As its policy passes a scene on: an absent camera is an image with its mask off."""
        masks = [torch.tensor([present]) for present in scene.present]
        return scene.images, masks, scene.tokens, scene.token_mask, scene.state, scene.noise

    def sample(self, prepared: tuple[Any, ...], steps: int) -> Tensor:
        self.config.num_steps = steps
        chunk: Tensor = self.model.sample_actions(*prepared[:-1], noise=prepared[-1])
        return chunk
