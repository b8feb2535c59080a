"""A job's process whose simulator is the toy's: `toy_sim_job.py ROOT JOB_DIR`, in place of `pirl_server.job_main`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parent))

from toy_arm import INSTRUCTIONS, ToyEnv

from pirl_server import job_main

STEPS = 3
"""of an episode"""


class SlowToy(ToyEnv):
    """With a pause in each episode, so that a run lasts long enough to be killed."""

    def reset(self, seed: int) -> Any:
        time.sleep(0.02)
        return super().reset(seed)


def fast_env(task: str, sees: bool) -> ToyEnv:
    """For workers, which import it by name."""
    return SlowToy(length=STEPS)


if __name__ == "__main__":
    toy: Any = SimpleNamespace(
        fast_env=fast_env, max_steps=lambda task: STEPS, instructions=lambda task: INSTRUCTIONS, setup=lambda task: {}
    )
    job_main.simulation = toy
    job_main.main()
