"""How much faster is the lean stepper than ManiSkill's own step? Same scene, same actions, same process.

    python bench/stepper.py [--quick] [--json]

Figures are control steps per second of CPU time (all threads), resets apart, and milliseconds of CPU time per reset.
The peer is ManiSkill's gym step under torch.inference_mode, which is already faster than the step users usually run.
"""

from __future__ import annotations

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pirl_sim.maniskill.env import PandaEnv, make_env
from pirl_sim.maniskill.steppers import StepperName
from pirl_sim.maniskill.tasks import TASKS


def play(env: PandaEnv, steps: int) -> tuple[float, float]:
    """Return (control steps per CPU-second, CPU-milliseconds per reset) over random actions."""
    rng = np.random.default_rng(0)
    actions = rng.uniform([-0.1] * 3 + [-1], [0.1] * 3 + [1], (steps, 4)).astype(np.float32)
    stepping, resetting, resets, ended = 0.0, 0.0, 0, True
    for action in actions:
        if ended:
            start = time.process_time()
            env.reset(resets)
            resetting, resets = resetting + time.process_time() - start, resets + 1
        start = time.process_time()
        result = env.step(action)
        stepping += time.process_time() - start
        ended = result.terminated or result.truncated
    return steps / stepping, 1e3 * resetting / resets


def measure(task_id: str, stepper: StepperName, steps: int) -> tuple[float, float]:
    """Play twice, keep the second: the first warms caches up."""
    env = make_env(task_id, stepper=stepper)
    play(env, steps // 10)
    figures = play(env, steps)
    env.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    lean_steps = 1500 if options.quick else 6000
    figures: dict[str, float] = {}
    for task_id in TASKS:
        lean, lean_reset = measure(task_id, "lean", lean_steps)
        peer, peer_reset = measure(task_id, "maniskill", lean_steps // 5)
        figures |= {
            f"{task_id} lean steps per CPU-second": round(lean),
            f"{task_id} maniskill steps per CPU-second": round(peer),
            f"{task_id} ratio lean : maniskill": round(lean / peer, 2),
            f"{task_id} lean reset ms": round(lean_reset, 2),
            f"{task_id} maniskill reset ms": round(peer_reset, 2),
        }
    print(json.dumps(figures) if options.json else "\n".join(f"{name:45}{value:>9}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
