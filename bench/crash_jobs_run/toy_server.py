"""A server that has jobs and nothing else: `toy_server.py ROOT`. Each line `SEED KEY` submits one and prints its id."""

from __future__ import annotations

import sys
from pathlib import Path

from pirl_server.config.jobs import Sft
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.paths import JOBS
from pirl_server.root_lock import root_lock

DEVICES = ("cpu:0", "cpu:1")


def main(root: Path) -> None:
    """Serve until the end of the input."""
    trainer = Path(__file__).with_name("toy_trainer.py")
    with root_lock(root):
        jobs = Supervisor(root / JOBS, [sys.executable, str(trainer)], devices=DEVICES, apart=True)
        print("ready", flush=True)
        for line in sys.stdin:
            seed, key = line.split()
            job, _ = jobs.submit_once(Sft(task="toy", seed=int(seed), retries=1000), key)
            print(job.id, flush=True)
        jobs.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
