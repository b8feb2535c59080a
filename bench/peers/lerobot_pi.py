"""lerobot 0.6.1's PI0Pytorch and PI05Pytorch as a peer: stock but for the sizes, through `sample_actions`.

lerobot builds one size only. What stands between it and others is replaced: the lookup of widths and depths, and the
two constructors, whose configurations get the case's vision tower and vocabulary. Its computation is left alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from case import Case, Scene
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from torch import Tensor, nn

LANGUAGE, EXPERT = modeling_pi0.PaliGemmaForConditionalGenerationWithPiGemma, modeling_pi0.PiGemmaForCausalLM
UNUSED = {f"paligemma_with_expert.{tower}.lm_head.weight" for tower in ("paligemma", "gemma_expert")}


def resize(module: ModuleType, case: Case) -> None:
    """Let the module build the case's sizes."""

    def variant(name: str) -> Any:
        sizes = case.sizes("vlm" if name == "gemma_2b" else "expert")
        return modeling_pi0.GemmaConfig(**sizes)

    def language(config: Any) -> nn.Module:
        config.projection_dim = config.vision_config.projection_dim = case.sizes("vlm")["width"]
        config.text_config.vocab_size = config.image_token_id = case.number("vocab")
        for name, size in case.sizes("vit").items():
            setattr(config.vision_config, name, size)
        model: nn.Module = LANGUAGE(config=config)
        return model

    def expert(config: Any) -> nn.Module:
        config.vocab_size = case.number("vocab")
        model: nn.Module = EXPERT(config=config)
        return model

    module.get_gemma_config = variant
    module.PaliGemmaForConditionalGenerationWithPiGemma = language
    module.PiGemmaForCausalLM = expert


class LerobotPi:
    """`serve.Model`."""

    def __init__(self, case: Case) -> None:
        self.adaptive = case.metadata["family"] == "pi05"
        module, config_class = (modeling_pi05, PI05Config) if self.adaptive else (modeling_pi0, PI0Config)
        resize(module, case)
        config = config_class(
            chunk_size=case.number("horizon"),
            n_action_steps=case.number("horizon"),
            max_state_dim=case.number("state_dim"),
            max_action_dim=case.number("action_dim"),
            image_resolution=(case.number("image_px"),) * 2,
            device="cpu",
        )
        self.model = (module.PI05Pytorch if self.adaptive else module.PI0Pytorch)(config).eval()
        missing, unexpected = self.model.load_state_dict(case.weights, strict=False)
        assert set(missing) | set(unexpected) <= UNUSED, (missing, unexpected)

    def prepare(self, scene: Scene) -> tuple[Any, ...]:
        """As its policy passes a scene on: an absent camera is an image with its mask off."""
        masks = [torch.tensor([present]) for present in scene.present]
        state = () if self.adaptive else (scene.state,)
        return (scene.images, masks, scene.tokens, scene.token_mask, *state, scene.noise)

    def sample(self, prepared: tuple[Any, ...], steps: int) -> Tensor:
        chunk: Tensor = self.model.sample_actions(*prepared, num_steps=steps)
        return chunk
