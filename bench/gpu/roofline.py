"""The least time that a chunk can take on a device: arithmetic over its peak or bytes over its bandwidth, per phase.

Prefix: the larger of the two; every weight of vision and language is read once. Denoise step: the same, which at batch
1 is the reading of the expert and of the cached keys and values. Adaptive norms depend on the time alone and are not
counted: a fixed schedule computes them once. No launch, no softmax, no norm, perfect overlap: a floor, not a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass

from pirl_server.model.pi0.config import Pi0Config

BYTES = 2
"""per weight and per cached number: bfloat16"""


@dataclass(frozen=True)
class Peak:
    """Datasheet numbers."""

    name: str
    """found in torch's name of the device, lower case"""
    flop_s: float
    """dense bfloat16"""
    bytes_s: float


PEAKS = (
    Peak("h200", 989e12, 4.8e12),
    Peak("h100 pcie", 756e12, 2.0e12),
    Peak("h100", 989e12, 3.35e12),
    Peak("a100-sxm4-80gb", 312e12, 2.04e12),
    Peak("a100", 312e12, 1.55e12),
    Peak("l40s", 362e12, 0.864e12),
    Peak("5090", 210e12, 1.79e12),
    Peak("4090", 165e12, 1.01e12),
    Peak("3090", 71e12, 0.936e12),
)


def peak_of(device_name: str) -> Peak | None:
    """The device's peaks; None when it is not in the table."""
    return next((peak for peak in PEAKS if peak.name in device_name.lower()), None)


@dataclass(frozen=True)
class Work:
    """Arithmetic and traffic of one phase."""

    flop: float
    bytes: float

    def ms(self, peak: Peak) -> float:
        """Whichever takes longer."""
        return 1e3 * max(self.flop / peak.flop_s, self.bytes / peak.bytes_s)


def tower_weights(config: Pi0Config, width: int, mlp_dim: int) -> int:
    """Weights of a Gemma tower's matrices."""
    attention = width * config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    return config.depth * (attention + 3 * width * mlp_dim)


def prefix_work(config: Pi0Config, cameras: int, text: int, batch: int) -> Work:
    """Vision, projector and language over all tokens."""
    vision = config.vision
    assert vision is not None
    patches, width = cameras * vision.patches, vision.width
    tokens = patches + text
    vision_weights = vision.depth * (4 * width**2 + 2 * width * vision.mlp_dim) + width * config.vlm.width
    language_weights = tower_weights(config, config.vlm.width, config.vlm.mlp_dim)
    attention = vision.depth * 4 * cameras * vision.patches**2 * width
    attention += config.depth * 4 * tokens**2 * config.heads * config.head_dim
    flop = 2 * (vision_weights * patches + language_weights * tokens) + attention
    return Work(float(flop * batch), float(BYTES * (vision_weights + language_weights)))


def step_work(config: Pi0Config, cameras: int, text: int, batch: int) -> Work:
    """One pass of the expert over the suffix."""
    assert config.vision is not None
    seen = cameras * config.vision.patches + text + config.horizon
    weights = tower_weights(config, config.expert.width, config.expert.mlp_dim)
    cache = 2 * config.depth * config.kv_heads * config.head_dim * seen
    attention = config.depth * 4 * config.horizon * seen * config.heads * config.head_dim
    return Work(float((2 * weights * config.horizon + attention) * batch), float(BYTES * (weights + cache * batch)))


def floor_ms(config: Pi0Config, peak: Peak, *, cameras: int, text: int, batch: int, steps: int) -> float:
    """Milliseconds of one chunk per row of the batch, all rows together."""
    step = step_work(config, cameras, text, batch).ms(peak)
    return prefix_work(config, cameras, text, batch).ms(peak) + steps * step
