"""A small policy of two ways to do it: every chunk is smooth, and a naive switch takes the other way half the time."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from toy_arm import INSTRUCTIONS, SCALE, Heard, toy_policy

from pirl_server.config.training import FlowMatchingConfig
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array
from pirl_server.training.chunk_dataset import make_windows
from pirl_server.training.supervised.flow_matching import fit

HORIZON, LONGEST = 8, 4
"""of a chunk, and of the delays that training simulates"""


def ways(count: int, seed: int) -> Array:
    """Model-space actions [count, H, 2]: to one side or the other, each with a slow swing of its own."""
    random = np.random.default_rng(seed)
    side = random.choice([-0.7, 0.7], size=(count, 1, 1))
    phase = random.uniform(0, 2 * np.pi, size=(count, 1, 2))
    swing = 0.2 * np.sin(phase + 0.4 * np.arange(HORIZON)[None, :, None])
    return (side + swing).astype(np.float32)


@functools.cache
def forked_policy(prefix_delay: int = LONGEST) -> FlowPolicy:
    """Trained in seconds; about 20 thousand parameters, 8 denoise steps."""
    policy = toy_policy(horizon=HORIZON, denoise_steps=8, prefix_delay=prefix_delay)
    state = np.random.default_rng(1).normal(size=(512, 21)).astype(np.float32) * 0.1
    sentences = [INSTRUCTIONS[row % 2] for row in range(512)]
    windows = make_windows(policy, state, sentences, ways(512, 0) * SCALE, None)
    config = FlowMatchingConfig(steps=400, batch_size=64, learning_rate=5e-3, vlm="frozen", warmup_steps=20)
    fit(policy, windows, replace(config, prefix_delay=prefix_delay), 0, Heard())
    return policy
