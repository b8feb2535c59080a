"""How fast are our pi0, pi0.5 and SmolVLA beside transformers' and lerobot's? Same weights, same scene, same threads.

    python bench/model.py [--quick] [--only "smolvla full"] [--json] [--peers DIR] [--threads N]

Four parts: milliseconds per chunk (observation to actions) beside each peer, PPO updates with and without cached
prefixes, import times, and the memory of the full-size SmolVLA. docker/install_oracles.sh makes their environments;
a peer that is absent is skipped.
Speed-up is the peer's milliseconds by ours: above 1 we are faster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "chunks"))

from model_imports import imports
from model_latency import latency
from model_memory import peaks
from model_peers import default_folder, pythons
from model_update import updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: less of everything, no import times")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--peers", type=Path, default=default_folder(), help="folder of the peers' environments")
    parser.add_argument("--threads", type=int, default=1, help="threads of every implementation (default 1)")
    parser.add_argument("--only", default="", help="chunks alone, of configurations whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = pythons(options.peers.expanduser())
    figures = latency(found, threads=options.threads, quick=options.quick, only=options.only)
    if not options.only:
        figures |= updates(quick=options.quick)
    if not options.quick and not options.only:
        figures |= imports(found)
        figures |= peaks()
    figures |= {"threads": options.threads, "load average at the end": round(os.getloadavg()[0], 2)}
    print(json.dumps(figures) if options.json else "\n".join(f"{name:80}{value:>9}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
