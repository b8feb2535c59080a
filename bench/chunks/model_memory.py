"""Peak memory of one process that draws a chunk of the full-size SmolVLA: 3 cameras, K = 10, random weights.

python bench/chunks/model_memory.py float32|bfloat16
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from pirl_server.algorithm.flow import euler_chain
from pirl_server.model.smolvla.config import smolvla
from pirl_server.model.smolvla.smolvla import SmolVla

CAMERAS, TEXT, STEPS = 3, 12, 10
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def peaks() -> dict[str, float]:
    """Figures by name; each dtype in a process of its own."""
    found = {}
    for dtype in DTYPES:
        said = subprocess.run([sys.executable, __file__, dtype], check=True, capture_output=True, text=True).stdout
        found[f"smolvla full, {CAMERAS} cameras, {dtype}: peak memory, GiB"] = round(float(said), 2)
    return found


@torch.inference_mode()
def draw(dtype: torch.dtype) -> torch.Tensor:
    """One chunk, the weights made in their dtype as a file's would be."""
    config = smolvla()
    with torch.device("meta"):
        model = SmolVla(config).to(dtype).eval()
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.normal_(std=0.05)
    assert config.vision is not None
    px = config.vision.image_px
    tokens = torch.randint(1, config.vocabulary, (1, TEXT))
    images = torch.rand(1, CAMERAS, 3, px, px) * 2 - 1
    prefix = model.encode_prefix(images, torch.ones(1, CAMERAS, dtype=torch.bool), tokens, tokens > 0)
    denoiser = model.denoiser(prefix, torch.randn(1, config.state_dim), STEPS)
    return euler_chain(denoiser, torch.randn(1, config.horizon, config.action_dim), STEPS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert draw(DTYPES[sys.argv[1]]).isfinite().all(), Path(__file__).name
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
