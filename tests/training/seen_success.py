"""Logged episodes whose last image shows how they ended, and a small image model with random weights.

A success has its dark square on the bright one; a failure beside it. The bright one is about the middle.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from toy_arm import SEEING
from toy_log import GOOD, episode

from pirl_contract import Camera, Contract, Observation
from pirl_server.episodes.schema import Episode

SIDE = 32
LOOKING: Contract = replace(SEEING, cameras=(Camera("base", SIDE, SIDE),))
SQUARE = 6


def last_image(seed: int, success: bool) -> NDArray[np.uint8]:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    goal = draw.integers(SIDE // 2 - SQUARE, SIDE // 2, 2)
    put = goal
    while not success and np.abs(put - goal).max() < SQUARE:
        put = draw.integers(0, SIDE - SQUARE, 2)
    for (row, column), value, margin in ((goal, 230, 0), (put, 20, 1)):
        pixels[row + margin : row + SQUARE - margin, column + margin : column + SQUARE - margin] = value
    return pixels


def seen_episode(
    number: int, success: bool, labelled: bool = True, sees: bool = True, blank: bool = False, **changes: Any
) -> Episode:
    """`sees`: it has a last observation; `blank`: that shows nothing."""
    made = episode(number, success if labelled else None, GOOD, decisions=1, contract=LOOKING, **changes)
    made = replace(made, calls=replace(made.calls, images={"base": np.zeros((1, SIDE, SIDE, 3), np.uint8)}))
    pixels = np.full((SIDE, SIDE, 3), 100, np.uint8) if blank else last_image(number, success)
    final = Observation({"base": pixels}, np.zeros(21, np.float32), made.info.instruction, "arm", 1)
    return replace(made, final=final if sees else None)


def save_backbone(folder: Path, kind: str = "vit") -> Path:
    """Make a folder as transformers writes it."""
    import transformers as library
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "image_size": SIDE, "patch_size": 4}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    square = {"size": {"height": SIDE, "width": SIDE}}
    if kind == "vit":
        config, processor = library.ViTConfig(**sizes), library.ViTImageProcessor(**square, **half)
    elif kind == "siglip":
        text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        config = library.SiglipConfig(text_config=text | {"vocab_size": 50}, vision_config=sizes)
        processor = library.SiglipImageProcessor(**square, **half)
    elif kind == "dinov2":
        config = library.Dinov2Config(**sizes)
        processor = library.BitImageProcessor(
            size={"shortest_edge": SIDE + 4}, crop_size={"height": SIDE, "width": SIDE}, **half
        )
    else:
        config = library.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        processor = library.ConvNextImageProcessor(size={"shortest_edge": SIDE}, **half)
    library.AutoModel.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
