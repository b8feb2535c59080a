"""Ways to damage the JSON beside the weights, and lerobot's statistics files; see `damage`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from damage import Damage
from foreign import write_json
from safetensors.torch import load_file, save_file

GARBAGE = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b"[" * 200_000, b'{"a": ' * 50_000, b"{}{}", b"1e999")
NORM_STATS = "assets/maker/arm/norm_stats.json"


def on_json(name: str, change: Callable[[dict[str, Any], random.Random], object]) -> Damage:
    def damage(folder: Path, dice: random.Random) -> None:
        raw = json.loads((folder / name).read_text())
        change(raw, dice)
        write_json(folder / name, raw)

    return damage


def garbage(*names: str) -> Damage:
    return lambda folder, dice: (folder / dice.choice(names)).write_bytes(dice.choice(GARBAGE))


def wrong_types(name: str, *keys: str) -> Damage:
    values = ("x", -1, 1.5, [], True, [None])
    return on_json(name, lambda raw, dice: raw.update({dice.choice(keys): dice.choice(values)}))


def claim(name: str, **values: object) -> Damage:
    """Something that the weights or the other files contradict."""
    return on_json(name, lambda raw, dice: raw.update([dice.choice(sorted(values.items(), key=str))]))


def bad_row(row: list[Any], other: list[float], dice: random.Random) -> None:
    """Values that a dimension can't have: not finite, of no extent, of the wrong type, or too few."""
    at = dice.randrange(len(row))
    kind = dice.choice(["not finite", "type", "shorter", "longer", "empty", "equal"])
    if kind == "not finite":
        row[at] = dice.choice([float("nan"), float("inf"), -float("inf")])
    elif kind == "type":
        row[at] = dice.choice([None, "1", [1.0], {}])
    elif kind == "shorter":
        row.pop()
    elif kind == "longer":
        row.append(1.0)
    elif kind == "empty":
        row.clear()
    else:
        row[:] = [0.0] * len(row) if other is row else other


def openpi_row(raw: dict[str, Any], dice: random.Random, family: str) -> None:
    rows = raw["norm_stats"][dice.choice(["state", "actions"])]
    first, second = ("mean", "std") if family == "pi0" else ("q01", "q99")
    bad_row(rows[second], rows[second] if family == "pi0" else rows[first], dice)


def openpi_rows(family: str) -> Damage:
    return on_json(NORM_STATS, lambda raw, dice: openpi_row(raw, dice, family))


def openpi_stats_lost(raw: dict[str, Any], dice: random.Random) -> None:
    stats = raw["norm_stats"]
    dice.choice([
        lambda: raw.pop("norm_stats"), lambda: stats.pop("state"), lambda: stats.pop("actions"),
        lambda: stats.update(state=[]), lambda: stats.update(actions=None), lambda: raw.update(norm_stats="x"),
        lambda: [stats["state"].pop(key) for key in ("mean", "q01")],
    ])()  # fmt: skip


def lerobot_rows(family: str) -> Damage:
    def damage(folder: Path, dice: random.Random) -> None:
        path = dice.choice(sorted(folder.glob("policy_*.safetensors")))
        rows = load_file(path)
        names = ("mean", "std") if family == "pi0" else ("q01", "q99")
        feature = dice.choice(["observation.state", "action"])
        name = f"{feature}.{names[1]}"
        kind = dice.choice(["nan", "equal", "shorter", "type"])
        if kind == "nan":
            rows[name][dice.randrange(len(rows[name]))] = dice.choice([torch.nan, torch.inf])
        elif kind == "equal":
            rows[name] = torch.zeros_like(rows[name]) if family == "pi0" else rows[f"{feature}.{names[0]}"].clone()
        elif kind == "shorter":
            rows[name] = rows[name][:-1].clone()
        else:
            rows[name] = rows[name].long()
        save_file(rows, path)

    return damage


def on_step(
    change: Callable[[dict[str, Any], random.Random], object], name: str = "policy_preprocessor.json"
) -> Damage:
    return on_json(name, lambda raw, dice: change(next(s for s in raw["steps"] if "state_file" in s), dice))


def bad_state_file(step: dict[str, Any], dice: random.Random) -> None:
    step["state_file"] = dice.choice(["../x", "/etc/passwd", "nothing.safetensors", "..", "", 3, "a\\b", "config.json"])


def strange_step(raw: dict[str, Any], dice: random.Random) -> None:
    step = dice.choice(raw["steps"])
    dice.choice([
        lambda: step.update(registry_name="my_step"), lambda: step.pop("registry_name"), lambda: step.update(config=3),
        lambda: raw.update(steps={}), lambda: raw.pop("steps"), lambda: raw["steps"].append("x"),
        lambda: step.update(registry_name=None),
    ])()  # fmt: skip


def another_order(raw: dict[str, Any], dice: random.Random) -> None:
    places = [step["registry_name"] for step in raw["steps"]]
    one, other = places.index("relative_actions_processor"), places.index("normalizer_processor")
    raw["steps"][one], raw["steps"][other] = raw["steps"][other], raw["steps"][one]


def side_damage(stack: str, family: str) -> dict[str, Damage]:
    """All of them for such a folder."""
    other = "pi05" if family == "pi0" else "pi0"
    if stack == "openpi":
        return {
            "config garbage": garbage("config.json"),
            "config types": wrong_types("config.json", "action_dim", "action_horizon", "head_dim", "vision_heads"),
            "config of another": claim(
                "config.json", action_dim=9, head_dim=15, vision_heads=5, pi05=family == "pi0", type=other
            ),
            "statistics garbage": garbage(NORM_STATS),
            "statistics": openpi_rows(family),
            "statistics lost": on_json(NORM_STATS, openpi_stats_lost),
        }
    dims = ("max_state_dim", "max_action_dim", "chunk_size", "image_resolution", "head_dim", "vision_heads")
    features = {"action": {"type": "ACTION", "shape": [9]}}
    return {
        "config garbage": garbage("config.json"),
        "config types": wrong_types("config.json", "type", "input_features", "output_features", "empty_cameras", *dims),
        "config of another": claim(
            "config.json", type=other, max_action_dim=9, max_state_dim=8 if family == "pi0" else 3, n_obs_steps=2,
            image_resolution=[224, 224], use_relative_actions=True, output_features=features, n_action_steps=99,
        ),
        "processors garbage": garbage("policy_preprocessor.json", "policy_postprocessor.json"),
        "processor lost": lambda folder, dice: dice.choice(sorted(folder.glob("policy_*"))).unlink(),
        "strange step": on_json("policy_preprocessor.json", strange_step),
        "another order": on_json("policy_preprocessor.json", another_order),
        "step's file": on_step(bad_state_file),
        "step's epsilon": on_step(lambda step, dice: step["config"].update(eps=dice.choice([1e-6, 0, "x", None]))),
        "step's mode": on_step(
            lambda step, dice: step["config"].update(norm_map=dice.choice([{}, {"ACTION": "QUANTILE10"}, [], 1])),
            "policy_postprocessor.json",
        ),
        "statistics": lerobot_rows(family),
    }  # fmt: skip
