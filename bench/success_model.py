"""How well does a success model judge real successes and failures by their last image? Three seeds, beside controls.

    python bench/success_model.py [--quick] [--json] [--attempts 400] [--seeds 0 1 2]
                                  [--write docs/results/success-model.md]

The scripted expert and disturbed versions of it push a cube in ManiSkill; the last image of each attempt is rendered
and stored with what the simulator says of it, and a success model learns from these episodes as a job does. Two
controls learn from the same episodes: with labels shuffled among them, and with each image painted over in one colour.
Then each model proposes labels for further attempts, whose outcomes it is not given. No published backbone can be
downloaded where this runs: it is a small ViT with random weights, which stays as it is, or learns too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "success_model_run"))

import numpy as np
import torch
from final_images import Attempt, attempts
from success_page import MEANS, write_page

from pirl_contract import ControlSource
from pirl_server import simulation
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.success import SuccessConfig, SuccessModel
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.episodes.demonstration import Recording, demonstration
from pirl_server.registry.success_models import SuccessModels
from pirl_server.training.progress import Printed
from pirl_server.training.success.backbone import Source
from pirl_server.training.success.learn import learn
from pirl_server.training.success.propose import propose
from pirl_server.training.success.success_judge import open_judge

TASK, SIDE = "PushCube-v1", 64
CASES = ("images", "images, backbone learns", "shuffled labels", "blank images")
FURTHER = 0.25
"""attempts beyond those that are learnt, as a share of them, for which labels are proposed"""


@dataclass(frozen=True)
class Plan:
    """What one seed's models learn from."""

    attempts: int
    config: SuccessConfig
    all_steps: int
    """steps where the backbone learns too"""


def save_backbone(folder: Path) -> Source:
    """A small ViT with random weights, as transformers writes it."""
    from transformers import AutoModel, ViTConfig, ViTImageProcessor

    torch.manual_seed(0)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, image_size=SIDE, patch_size=8
    )
    AutoModel.from_config(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}, **half).save_pretrained(folder)
    return Source("a small ViT", str(folder))


def store_of(folder: Path, found: Sequence[Attempt], outcomes: Sequence[bool | None], blank: bool) -> EpisodeStore:
    """Publish the attempts; of each the last observation, twice, with an action between them that does nothing."""
    store, contract = EpisodeStore(folder), simulation.contract(TASK)
    for number, (attempt, success) in enumerate(zip(found, outcomes)):
        images = {name: np.stack([pixels] * 2) for name, pixels in attempt.final.images.items()}
        recording = Recording(
            state=np.stack([attempt.final.state] * 2),
            action=np.zeros((1, contract.action_dim), np.float32),
            images={name: np.full_like(pixels, 128) if blank else pixels for name, pixels in images.items()},
            time_ns=np.array([0, 1], np.int64),
            instruction=attempt.final.instruction,
            success=success,
        )
        store.write(demonstration(recording, contract, "panda", ControlSource.POLICY, f"{number:032x}"))
    return store


def case(name: str, plan: Plan, seed: int, found: Sequence[Attempt], folder: Path, source: Source) -> dict[str, Any]:
    """One model's measures; of those that look at the images, what came of its proposals as well."""
    learnt, further = found[: plan.attempts], found[plan.attempts :]
    outcomes: list[bool | None] = [each.success for each in learnt]
    if name == "shuffled labels":
        outcomes = [outcomes[row] for row in np.random.default_rng(seed).permutation(len(outcomes))]
    unlabelled: list[bool | None] = [None] * len(further)
    store = store_of(folder / "episodes", found, outcomes + unlabelled, name == "blank images")
    everything = name == CASES[1]
    config = replace(plan.config, train="all", steps=plan.all_steps) if everything else plan.config
    began = time.monotonic()
    spec = SuccessModel(task=TASK, backbone="vit", seed=seed, config=config)
    measured = dict(learn(spec, source, store, folder / "made", Printed()))
    row = {"case": name, "seed": seed, "learn_s": time.monotonic() - began} | measured
    models = SuccessModels(folder / "models")
    card = models.add(folder / "made")
    if card.threshold is None:
        return row | {"proposed": 0, "proposed_right": 0, "further": len(further)}
    propose(store, open_judge(models, card), card, EpisodeSelection(), Printed())
    ids = store.proposals.ids("open")
    right = [store.proposals.get(each).success is found[int(each, 16)].success for each in ids]
    return row | {"proposed": len(ids), "proposed_right": sum(right), "further": len(further)}


def rows(plan: Plan, seeds: Sequence[int]) -> list[dict[str, Any]]:
    made = []
    with tempfile.TemporaryDirectory() as folder:
        source = save_backbone(Path(folder) / "vit")
        for seed in seeds:
            found = attempts(TASK, plan.attempts + int(FURTHER * plan.attempts), seed)
            good = sum(each.success for each in found)
            print(f"seed {seed}: {good} successes, {len(found) - good} failures", file=sys.stderr)
            for number, name in enumerate(CASES):
                made.append(case(name, plan, seed, found, Path(folder) / f"{seed}-{number}", source))
    return made


def figures(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over seeds."""
    shown = {}
    for name in CASES:
        mine = [each for each in found if each["case"] == name]
        for key in (*MEANS, "proposed", "proposed_right"):
            shown[f"{name}: {key}"] = float(np.mean([each[key] for each in mine]))
    return shown


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few attempts: shows that it runs")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--attempts", type=int, default=400, help="that a model learns from and is measured on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables")
    options = parser.parse_args()
    plan = Plan(options.attempts, SuccessConfig(), 300)
    if options.quick:
        plan, options.seeds = Plan(48, SuccessConfig(steps=40, min_episodes=8), 5), options.seeds[:1]
    found = rows(plan, options.seeds)
    if options.write:
        write_page(options.write, found, CASES, " ".join(sys.argv))
    shown = figures(found)
    print(json.dumps(shown) if options.json else "\n".join(f"{name:64}{value:>10.3f}" for name, value in shown.items()))


if __name__ == "__main__":
    main()
