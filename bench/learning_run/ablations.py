"""What one setting does, everything else equal: the paper's ablations, on one task, from the same supervised start."""

from __future__ import annotations

from typing import Any

Cases = dict[str, dict[str, Any]]
"""label -> fields of PpoConfig where they are not the task's"""

TASK = "PushCube-v1"
BUDGET = {"env_steps": 60_000}
FLOW_NOISE = {"noise": "flow-noise", "steps": "all", "reduction": "mean_steps", "entropy_weight": 0.005}

ABLATIONS: dict[str, Cases] = {
    "sampler": {
        "Flow-SDE, hybrid": {},
        "Flow-SDE, hybrid, stratified": {"index": "stratified"},
        "Flow-SDE, hybrid, shared index": {"index": "shared"},
        "Flow-SDE, every step": {"steps": "all"},
        "Flow-Noise, mean": FLOW_NOISE,
        "Flow-Noise, sum": FLOW_NOISE | {"reduction": "sum", "actor_learning_rate": 3e-5},
        "coefficient-preserving": {"noise": "cps"},
    },
    "hybrid-vs-all": {
        "hybrid": {},
        "every step, joint": {"steps": "all"},
        "every step, mean": {"steps": "all", "reduction": "mean_steps"},
        "every step, a ratio each": {"steps": "all", "reduction": "per_step"},
    },
    "ppo-vs-grpo": {
        "PPO": {},
        "GRPO, success": {"advantage": "grpo", "rounds": 2},
        "GRPO, rewards": {"advantage": "grpo", "rounds": 2, "group_return": "reward"},
    },
    "critic": {
        "state": {},
        "V_expert": {"critic": "expert"},
        "V_vlm": {"critic": "vlm"},
        "V_expert, clipped Huber": {"critic": "expert", "value_clip": 0.2, "huber_delta": 10.0},
    },
    "noise-level": {f"a = {level}": {"noise_level": level} for level in (0.2, 0.5, 0.8)}
    | {"a = 0.7 to 0.3": {"noise_level": 0.7, "anneal_to": 0.3, "anneal_over": 30}},
    "K": {f"K = {steps}": {"denoise_steps": steps} for steps in (1, 2, 4, 8)},
    "chunk-length": {f"{played} of 4 actions played": {"execute_horizon": played} for played in (1, 2, 4)},
    "critic-warm-up": {f"{updates} updates": {"warmup_updates": updates} for updates in (0, 2, 5)},
}
