"""What held-out episodes say of good and of broken candidates: action errors and offline bounds beside true rates.

    python bench/offline_gate.py --episodes 100 --states 200 --seeds 0 1 --out runs/offline-gate

Episodes are logged in the fast simulator; rates are of initial states that nothing else sees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "robot_learning_run"))

import torch
from cells import TASKS, Plan, log, outcomes, start
from torch import Tensor

from pirl_server.config.fields import parse
from pirl_server.config.training import EpisodesConfig
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint, save_checkpoint
from pirl_server.training.episode_log import EpisodeLog
from pirl_server.training.episode_rl.finetune import finetune_episodes
from pirl_server.training.held_out import hold_out
from pirl_server.training.offline_evidence import measure
from pirl_server.training.progress import Printed

Change = Callable[[str, Tensor], Tensor]
BROKEN: dict[str, Change] = {
    "zero weights": lambda name, weight: torch.zeros_like(weight),
    "actions in another order": lambda name, weight: weight.flip(0) if "action_out" in name else weight,
    "weights off by 30 %": lambda name, weight: weight * (1.0 + 0.3 * torch.randn_like(weight)),
}


def main() -> None:
    """Print one line per candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="PushCube-v1")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=["filtered_bc", "advantage_weighted", "ppo_logged"])
    parser.add_argument("--broken", nargs="*", default=[*BROKEN], help="which broken ones; none: leave them out")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print("| candidate | seed | success before | after | action error, times the base's | offline change, bound |")
    print("|---|---|---|---|---|---|")
    for seed in options.seeds:
        for name in (*options.methods, *options.broken):
            print(line(options, name, seed), flush=True)


def line(options: argparse.Namespace, name: str, seed: int) -> str:
    """One row."""
    plan = Plan(options.task, name, seed, options.episodes, options.states, tuning=True)
    base = start(options.task, options.out)
    config = parse(EpisodesConfig, {"method": "auto" if name in BROKEN else name})
    split = hold_out(EpisodeLog.of(log(plan, base, 0, options.out)), config.held_out_share, config.min_episodes)
    made = options.out / "candidates" / f"{options.task}-{options.episodes}-{name.replace(' ', '-')}-{seed}"
    if not (made / "card.json").is_file():
        make(base, made, name, seed, split.learnt, config)
    found = measure(base, made, split.held_out, config, seed, {checkpoint_version(base): base}.get)
    before, after = (sum(each) / len(each) for each in (outcomes(plan, v, options.out) for v in (base, made)))
    error, gain = found.action_error, found.gain
    said = "-" if error is None else f"{error.ratio:.2f}"
    bound = "-" if gain is None else f"{gain.mean:+.3f}, {gain.lower:+.3f} ({gain.episodes} episodes)"
    return f"| {name} | {seed} | {before:.3f} | {after:.3f} | {said} | {bound} |"


def make(base: Path, out: Path, name: str, seed: int, learnt: EpisodeLog, config: EpisodesConfig) -> None:
    """Learn a candidate, or break the base."""
    if name not in BROKEN:
        finetune_episodes(base, out, learnt, config, seed, Printed())
        return
    card, weights, _ = load_checkpoint(base)
    torch.manual_seed(seed)
    broken = {key: BROKEN[name](key, weight) for key, weight in weights.items()}
    save_checkpoint(out, replace(card, lineage={"parent": checkpoint_version(base)}), broken)


if __name__ == "__main__":
    main()
