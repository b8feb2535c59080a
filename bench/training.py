"""What does training cost beside the plain way, and what does a second worker bring? Ratios of one run.

    python bench/training.py [--quick] [--json] [--task PushCube-v1] [--threads N]

Updates per second: the same policy with a camera, the same decisions and gradient steps, once as here, once by the
plain recomputation that the paper's released code has: vision and language run again in every minibatch, and where
each denoise step is stochastic, a pass per step. The losses of both must agree, and do before a number is printed.
Env steps per second: rollouts of the task with 1 and with 2 workers. Above 1, we are faster, or two workers are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

sys.path.insert(0, str(Path(__file__).parent / "training_run"))

from update_rates import update_rates
from worker_rates import worker_rates


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: less of everything")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--task", default="PushCube-v1")
    parser.add_argument("--threads", type=int, default=1, help="of the learner")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = update_rates(quick=options.quick) | worker_rates(options.task, quick=options.quick)
    figures |= {"threads": options.threads, "load average at the end": round(os.getloadavg()[0], 2)}
    print(
        json.dumps(figures) if options.json else "\n".join(f"{name:72}{value:>10}" for name, value in figures.items())
    )


if __name__ == "__main__":
    main()
