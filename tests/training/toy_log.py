"""Logged episodes of the toy arm: what was executed, and how it ended."""

from __future__ import annotations

import numpy as np
from toy_arm import CONTRACT, INSTRUCTIONS, SCALE, SEEING

from pirl_contract import Contract, ControlSource
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps

GOOD, BAD = np.array([0.8, 0.8], np.float32), np.array([-0.8, -0.8], np.float32)
"""model space: what was executed in episodes that then succeeded, and failed"""


def episode(
    number: int,
    success: bool | None,
    executed: np.ndarray,
    decisions: int = 3,
    contract: Contract | None = None,
    instruction: str = INSTRUCTIONS[0],
    played: bool = True,
    sees: bool = False,
    dry_run: bool = False,
) -> Episode:
    """One logged episode of decisions with two executed steps each; its chunks say something else than was executed."""
    contract = contract or (SEEING if sees else CONTRACT)
    random, steps = np.random.default_rng(number), 2 * decisions
    info = EpisodeInfo(
        id=f"{number:032x}", robot_id="arm", contract=contract, instruction=instruction, success=success,
        label_source="operator" if success is not None else "", end_reason="operator", policy_name="toy",
        policy_versions=("v1",), execute_horizon=2, metadata={}, created="2026-01-01T00:00:00Z", dry_run=dry_run,
    )  # fmt: skip
    images = {c.name: random.integers(256, size=(decisions, 16, 16, 3), dtype=np.uint8) for c in contract.cameras}
    zeros = np.zeros((decisions, 2, 2), np.float32)
    calls = Calls(
        images=images, state=random.normal(size=(decisions, 21)).astype(np.float32) * 0.1,
        capture_time_ns=np.zeros(decisions, np.int64), chunk=zeros, chain=np.zeros((decisions, 5, 2, 2), np.float32),
        sde_index=np.full(decisions, -1, np.int32), log_prob=zeros, std=np.zeros(decisions, np.float32),
        noise_level=np.zeros(decisions, np.float32), value=np.full(decisions, np.nan, np.float32),
        seed=np.zeros(decisions, np.uint64), policy_version=np.zeros(decisions, np.int32),
        step=(np.arange(decisions, dtype=np.int32) * 2 if played else np.full(decisions, -1, np.int32)),
        latency_ms=np.zeros(decisions, np.float32),
    )  # fmt: skip
    last = np.arange(steps) == steps - 1
    rest = Steps(
        executed=np.tile(executed * SCALE, (steps, 1)).astype(np.float32), state=np.zeros((steps, 21), np.float32),
        reward=np.zeros(steps, np.float32), alterations=np.zeros(steps, np.uint32),
        source=np.full(steps, ControlSource.POLICY if played else ControlSource.HOLD, np.uint8),
        call=np.repeat(np.arange(decisions, dtype=np.int32), 2) if played else np.full(steps, -1, np.int32),
        index=np.tile(np.array([0, 1], np.int32), decisions),
        time_ns=np.zeros(steps, np.int64), terminated=last & bool(success), truncated=last & (not success),
    )  # fmt: skip
    return Episode(info, calls, rest)
