"""What one setting does, everything else equal: the paper's ablations, on one task, from the same supervised start."""

from __future__ import annotations

from typing import Any

Cases = dict[str, dict[str, Any]]
"""label -> fields of PpoConfig where they are not the task's"""

TASK = "PullCube-v1"
BUDGET = {"env_steps": 60_000}
FLOW_NOISE = {"noise": "flow-noise", "steps": "all", "reduction": "mean_steps", "entropy_weight": 0.005}

ABLATIONS: dict[str, Cases] = {
    "ppo-vs-grpo": {"PPO": {}, "GRPO": {"advantage": "grpo", "rounds": 2}},
    "hybrid-vs-all": {
        "hybrid": {},
        "every step, joint": {"steps": "all"},
        "every step, mean": {"steps": "all", "reduction": "mean_steps"},
    },
    "sampler": {
        "Flow-SDE, hybrid": {},
        "Flow-SDE, every step": {"steps": "all", "reduction": "mean_steps"},
        "Flow-Noise": FLOW_NOISE,
    },
    "critic": {"state": {}, "V_expert": {"critic": "expert"}, "V_vlm": {"critic": "vlm"}},
    "K": {"K = 1": {"denoise_steps": 1}, "K = 4": {}, "K = 8": {"denoise_steps": 8}},
    "chunk-length": {"1 of 4 actions played": {"execute_horizon": 1}, "2 of 4": {"execute_horizon": 2}, "4 of 4": {}},
    "noise-level": {"a = 0.2": {"noise_level": 0.2}, "a = 0.5": {}, "a = 0.8": {"noise_level": 0.8}},
    "critic-warm-up": {"none": {"warmup_updates": 0}, "2 updates": {}, "5 updates": {"warmup_updates": 5}},
    "further": {
        "Flow-SDE, hybrid": {},
        "stratified index": {"index": "stratified"},
        "shared index": {"index": "shared"},
        "coefficient-preserving": {"noise": "cps"},
        "every step, a ratio each": {"steps": "all", "reduction": "per_step"},
        "Flow-Noise, sum": FLOW_NOISE | {"reduction": "sum", "actor_learning_rate": 3e-5},
        "GRPO of rewards": {"advantage": "grpo", "rounds": 2, "group_return": "reward"},
        "V_expert, clipped Huber": {"critic": "expert", "value_clip": 0.2, "huber_delta": 10.0},
    },
}
"""a case that is the default says nothing, so that its runs are those of the other tables"""
