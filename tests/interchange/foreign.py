"""Small checkpoints as openpi and lerobot write them, made of the golden files' weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pirl_contract import Camera, Contract, Field
from pirl_server.interchange.checkpoints.import_options import Request
from pirl_server.interchange.checkpoints.source_metadata import Stack

GOLDEN = Path(__file__).parents[1] / "model" / "golden"
STATE_DIM, ACTION_DIM, HORIZON, ROBOT_ACTIONS = 7, 8, 5, 6
"""of the golden models of pi0 and pi0.5, and how many entries our robot's state and action have"""
WIDTHS = {"smolvla": (8, 7, 6)}
"""state, action and horizon of other golden models"""
MODES = {"pi0": "MEAN_STD", "pi05": "QUANTILES", "smolvla": "MEAN_STD"}
PROMPT_TOKENS = {"pi0": 48, "pi05": 200, "smolvla": 48}
NEWLINES = {"pi0": "pi0_new_line_processor", "smolvla": "smolvla_new_line_processor"}
HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBEDDING = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
STATS: dict[str, dict[str, list[float]]] = {
    "state": {
        "mean": [0.1 * i for i in range(STATE_DIM)],
        "std": [0.5 + 0.1 * i for i in range(STATE_DIM)],
        "q01": [-1.0 - i for i in range(STATE_DIM)],
        "q99": [1.0 + i for i in range(STATE_DIM)],
    },
    "actions": {
        "mean": [0.3 * i for i in range(ROBOT_ACTIONS)],
        "std": [1.5 + 0.1 * i for i in range(ROBOT_ACTIONS)],
        "q01": [-2.0 - i for i in range(ROBOT_ACTIONS)],
        "q99": [2.0 + i for i in range(ROBOT_ACTIONS)],
    },
}
HEADS = {"head_dim": 16, "vision_heads": 4}


def golden(family: str, part: str) -> dict[str, torch.Tensor]:
    """Tensors of a golden file below weights/, in/ or out/."""
    with safe_open(GOLDEN / f"{family}_tiny.safetensors", "pt") as file:
        return {key.removeprefix(part): file.get_tensor(key) for key in file.keys() if key.startswith(part)}  # noqa: SIM118


def weights_of(family: str) -> dict[str, torch.Tensor]:
    """openpi's names, the tied embedding saved once, as openpi does."""
    weights = golden(family, "weights/")
    weights.pop(EMBEDDING, None)
    return weights


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def openpi_folder(folder: Path, family: str, weights: Mapping[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(parents=True)
    save_file(dict(weights or weights_of(family)), folder / "model.safetensors", {"format": "pt"})
    write_json(
        folder / "config.json", {"action_dim": ACTION_DIM, "action_horizon": HORIZON, "precision": "float32", **HEADS}
    )
    write_json(folder / "assets" / "maker" / "arm" / "norm_stats.json", {"norm_stats": STATS})
    return folder


def lerobot_folder(folder: Path, family: str, weights: Mapping[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(parents=True)
    named = {f"model.{name}": value for name, value in (weights or weights_of(family)).items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", lerobot_config(family))
    write_processors(folder, family)
    return folder


def lerobot_config(family: str) -> dict[str, Any]:
    images = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 28, 28]} for name in ("front", "wrist")}
    mode, (state, action, horizon) = MODES[family], WIDTHS.get(family, (STATE_DIM, ACTION_DIM, HORIZON))
    own: dict[str, Any] = {
        "image_resolution": [28, 28], "use_relative_actions": False, "num_inference_steps": 10,
    }  # fmt: skip
    if family == "smolvla":
        own = {"resize_imgs_with_padding": [32, 32], "num_steps": 10, "num_vlm_layers": 4, "prefix_length": -1}
    return {
        "type": family,
        "input_features": {**images, "observation.state": {"type": "STATE", "shape": [STATE_DIM]}},
        "output_features": {"action": {"type": "ACTION", "shape": [ROBOT_ACTIONS]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "chunk_size": horizon, "n_action_steps": 3, "max_state_dim": state, "max_action_dim": action,
        "empty_cameras": 1, "tokenizer_max_length": PROMPT_TOKENS[family], "optimizer_lr": 2.5e-5, **HEADS, **own,
    }  # fmt: skip


def write_processors(folder: Path, family: str, *, relative: bool = False) -> None:
    mode = MODES[family]
    before, after = "policy_preprocessor", "policy_postprocessor"
    state, action = ({name: torch.tensor(row) for name, row in STATS[key].items()} for key in ("state", "actions"))
    flat = {f"observation.state.{name}": row for name, row in state.items()}
    flat |= {f"action.{name}": row for name, row in action.items()}
    norm = {"eps": 1e-8, "features": {}, "norm_map": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}}
    files = [f"{before}_step_5_normalizer_processor.safetensors", f"{after}_step_0_unnormalizer_processor.safetensors"]
    for name in files:
        save_file(flat, folder / name)
    words = {"max_length": PROMPT_TOKENS[family], "padding_side": "right", "task_key": "task"}
    tokenizer = {"registry_name": "tokenizer_processor", "config": words}
    normalizer = {"registry_name": "normalizer_processor", "config": norm, "state_file": files[0]}
    which = {
        "enabled": relative,
        "exclude_joints": ["gripper"],
        "action_names": ["a", "b", "c", "d", "e", "left_Gripper"],
    }
    steps: list[dict[str, Any]] = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
    ]
    if family != "smolvla":
        steps += [{"registry_name": "relative_actions_processor", "config": which}]
    if family in NEWLINES:
        steps += [{"registry_name": NEWLINES[family], "config": {}}, tokenizer, normalizer]
    else:
        prepare = {"registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {"max_state_dim": 7}}
        steps += [normalizer, prepare, tokenizer]
    steps += [{"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}]
    write_json(folder / f"{before}.json", {"name": before, "steps": steps})
    unnormalizer = {"registry_name": "unnormalizer_processor", "config": norm, "state_file": files[1]}
    absolute = {"registry_name": "absolute_actions_processor", "config": {"enabled": relative}}
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    undone = [unnormalizer, device] if family == "smolvla" else [unnormalizer, absolute, device]
    write_json(folder / f"{after}.json", {"name": after, "steps": undone})


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    write_json(path, raw)


def edit_config(folder: Path, **values: object) -> None:
    """Set keys of config.json; None takes one away."""
    edit_json(folder / "config.json", lambda raw: raw.update(values))
    edit_json(folder / "config.json", lambda raw: [raw.pop(key) for key, value in values.items() if value is None])


def edit_step(folder: Path, name: str, **config: object) -> None:
    """Set values of a processor step, in whichever pipeline has it."""
    for pipeline in ("policy_preprocessor.json", "policy_postprocessor.json"):
        edit_json(
            folder / pipeline,
            lambda raw: [step["config"].update(config) for step in raw["steps"] if step["registry_name"] == name],
        )


def drop_step(folder: Path, name: str, pipeline: str = "policy_preprocessor.json") -> None:
    def drop(raw: dict[str, Any]) -> None:
        raw["steps"] = [step for step in raw["steps"] if step["registry_name"] != name]

    edit_json(folder / pipeline, drop)


def write_robot(
    path: Path,
    cameras: Sequence[str] = ("front", "wrist"),
    state: int | Sequence[Field] = STATE_DIM,
    action: int | Sequence[Field] = ROBOT_ACTIONS,
) -> Path:
    """The contract of a robot without limits, where its entries are only counted."""

    def fields(kind: str, given: int | Sequence[Field]) -> tuple[Field, ...]:
        return tuple(Field(f"{kind}{i}", "rad") for i in range(given)) if isinstance(given, int) else tuple(given)

    views = tuple(Camera(name, 28, 28) for name in cameras)
    path.write_text(Contract("arm", views, fields("q", state), fields("dq", action), 20.0).to_json())
    return path


def shard(folder: Path) -> None:
    """Split model.safetensors into two shards with an index, as the hub's large files are."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    homes = {key: names[i % 2] for i, key in enumerate(sorted(tensors))}
    for name in names:
        save_file({key: value for key, value in tensors.items() if homes[key] == name}, folder / name)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": homes})


def word_tokenizer(out: Path) -> str:
    """A tokenizer.json of bytes with SmolVLM's special tokens, as small as the golden's vocabulary of 97."""
    letters = " abcdefghijklmnopqrstuvwxyz\n"
    vocabulary = {"<|im_start|>": 0, "<|im_end|>": 1, "<end_of_utterance>": 2, "<unk>": 3}
    vocabulary |= {letter: place for place, letter in enumerate(letters, len(vocabulary))}
    vocabulary |= {f"<word_{place}>": place for place in range(len(vocabulary), 97)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "<unk>", "fuse_unk": False}
    path = out.parent / f"{out.name}-tokenizer.json"
    write_json(path, {"version": "1.0", "model": model, "added_tokens": []})
    return str(path)


def request(stack: Stack, source: Path, out: Path, family: str, **changes: Any) -> Request:
    """What a person has to say for such a folder."""
    asked = Request(stack, source, out, tokenizer=word_tokenizer(out) if family == "smolvla" else "bytes")
    if stack == "openpi":
        asked = replace(asked, delta=(True,) * 5 + (False,), prompt=None if family == "pi0" else "pi05")
    return replace(asked, **changes)


def make(stack: Stack, folder: Path, family: str) -> Path:
    return (openpi_folder if stack == "openpi" else lerobot_folder)(folder, family)
