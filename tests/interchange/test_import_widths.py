"""Widths: what config.json and old statistics state is often the model's padded width, not the robot's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import STATS, edit_config, edit_json, lerobot_folder, openpi_folder, request, write_json, write_robot
from safetensors.torch import load_file, save_file

from pirl_server.interchange.checkpoints.importer import import_checkpoint

BASE = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
FED = {"base_0_rgb": "front", "left_wrist_0_rgb": "wrist"}


def base_config(folder: Path, state: int = 32, action: int = 6) -> None:
    """As lerobot leaves it when a base is fine-tuned: three cameras, and the width that the model pads to."""
    images = {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 224, 224]} for name in BASE}
    edit_config(
        folder, input_features={**images, "observation.state": {"type": "STATE", "shape": [state]}},
        output_features={"action": {"type": "ACTION", "shape": [action]}}, max_state_dim=32, empty_cameras=0,
    )  # fmt: skip


def without_statistics(folder: Path) -> None:
    for name in ("policy_preprocessor", "policy_postprocessor"):
        edit_json(folder / f"{name}.json", lambda raw: [step.pop("state_file", None) for step in raw["steps"]])
    for path in folder.glob("policy_*.safetensors"):
        path.unlink()


def padded(zeros: int, kinds: tuple[str, ...] = ("state", "actions")) -> dict[str, Any]:
    """Statistics of 5 and 6 entries with zeros behind them."""
    real = {"state": 5, "actions": 6}
    return {
        kind: {name: row[: real[kind]] + [0.0] * (zeros if kind in kinds else 0) for name, row in rows.items()}
        for kind, rows in STATS.items()
    }


@pytest.mark.parametrize("action", [6, 8])
def test_a_config_with_the_base_s_padded_width_leaves_the_robot_s_to_the_statistics(
    tmp_path: Path, action: int
) -> None:
    source, robot = lerobot_folder(tmp_path / "source", "pi05"), write_robot(tmp_path / "arm.json")
    base_config(source, action=action)
    asked = request("lerobot", source, tmp_path / "out", "pi05", contract=robot, cameras=FED)
    card, _ = import_checkpoint(asked)
    assert (card.contract.state_dim, card.contract.action_dim) == (7, 6)
    assert card.processing is not None
    assert (len(card.processing.state.first), len(card.processing.action.first)) == (7, 6)


def test_a_base_without_statistics_takes_those_of_the_robot(tmp_path: Path) -> None:
    source, robot = lerobot_folder(tmp_path / "source", "pi05"), write_robot(tmp_path / "arm.json")
    base_config(source, action=8)
    without_statistics(source)
    write_json(tmp_path / "own.json", {"norm_stats": STATS})
    asked = request("lerobot", source, tmp_path / "out", "pi05", contract=robot, cameras=FED)
    with pytest.raises(ValueError, match="q01 and q99 of the state: give those of the data set with --norm-stats"):
        import_checkpoint(asked)
    card, _ = import_checkpoint(replace(asked, norm_stats=tmp_path / "own.json"))
    assert (card.contract.state_dim, card.contract.action_dim) == (7, 6)


def test_a_width_that_is_not_the_model_s_still_contradicts(tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "pi05")
    base_config(source, state=9)
    with pytest.raises(ValueError, match=r"the state has 9 dimensions in config\.json and 7 in its statistics"):
        import_checkpoint(request("lerobot", source, tmp_path / "out", "pi05"))


def test_without_normalisation_the_contract_says_how_wide_the_robot_is(tmp_path: Path) -> None:
    source, robot = lerobot_folder(tmp_path / "source", "pi05"), write_robot(tmp_path / "arm.json", state=9)
    base_config(source)
    for name in ("policy_preprocessor", "policy_postprocessor"):
        edit_json(source / f"{name}.json", lambda raw: [
            step["config"]["norm_map"].update(STATE="IDENTITY") for step in raw["steps"] if "state_file" in step
        ])  # fmt: skip
    card, _ = import_checkpoint(request("lerobot", source, tmp_path / "out", "pi05", contract=robot, cameras=FED))
    assert card.contract.state_dim == 9


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_zeros_behind_openpi_s_statistics_are_padding(tmp_path: Path, family: Any) -> None:
    """openpi padded before it computed statistics until June 2025, and cuts such rows to the data's width since."""
    source = openpi_folder(tmp_path / "source", family)
    write_json(source / "assets" / "maker" / "arm" / "norm_stats.json", {"norm_stats": padded(2)})
    robot = write_robot(tmp_path / "arm.json", BASE[:2], 5, 6)
    card, _ = import_checkpoint(request("openpi", source, tmp_path / "out", family, contract=robot))
    assert card.processing is not None
    first = "mean" if family == "pi0" else "q01"
    assert card.processing.state.first == pytest.approx(STATS["state"][first][:5])
    assert card.processing.action.first == pytest.approx(STATS["actions"][first])


def test_without_a_contract_zeros_up_to_the_model_s_width_are_padding(tmp_path: Path) -> None:
    source = openpi_folder(tmp_path / "source", "pi0")
    write_json(source / "assets" / "maker" / "arm" / "norm_stats.json", {"norm_stats": padded(2)})
    card, _ = import_checkpoint(request("openpi", source, tmp_path / "out", "pi0"))
    assert (card.contract.state_dim, card.contract.action_dim) == (5, 6)


def test_zeros_that_the_contract_counts_are_entries(tmp_path: Path) -> None:
    """Negative control: an entry of the robot that never moved is not padding."""
    source = openpi_folder(tmp_path / "source", "pi0")
    write_json(source / "assets" / "maker" / "arm" / "norm_stats.json", {"norm_stats": padded(2)})
    robot = write_robot(tmp_path / "arm.json", BASE[:2], 6, 6)
    with pytest.raises(ValueError, match="state 'q5': std is 0, below 1e-05"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi0", contract=robot))


def test_entries_that_move_are_never_cut_off(tmp_path: Path) -> None:
    source = openpi_folder(tmp_path / "source", "pi0")
    robot = write_robot(tmp_path / "arm.json", BASE[:2], 5, 6)
    with pytest.raises(ValueError, match="5 state and 6 action dimensions, the checkpoint 7 and 6"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi0", contract=robot))


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_zeros_that_lerobot_normalised_to_minus_one_are_rejected(tmp_path: Path, family: Any) -> None:
    """By mean and deviation a padded 0 stays 0, by quantiles it becomes -1 and stands in the prompt."""
    source = lerobot_folder(tmp_path / "source", family)
    for path in source.glob("policy_*.safetensors"):
        rows = load_file(path)
        state = {name: row for name, row in rows.items() if name.startswith("observation.state")}
        save_file(rows | {name: torch.tensor([*row[:5].tolist(), 0.0, 0.0]) for name, row in state.items()}, path)
    robot = write_robot(tmp_path / "arm.json", state=5)
    asked = request("lerobot", source, tmp_path / "out", family, contract=robot)
    if family == "pi0":
        assert import_checkpoint(asked)[0].contract.state_dim == 5
        return
    with pytest.raises(ValueError, match="padded with zeros from 5 to 7 entries, which lerobot normalises to -1"):
        import_checkpoint(asked)


def test_the_relative_actions_of_a_padded_config_are_the_robot_s(tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "pi05")
    base_config(source, action=8)
    edit_config(source, use_relative_actions=True)
    for name, step in (("pre", "relative_actions_processor"), ("post", "absolute_actions_processor")):
        edit_json(source / f"policy_{name}processor.json", lambda raw, step=step: [
            each["config"].update(enabled=True) for each in raw["steps"] if each["registry_name"] == step
        ])  # fmt: skip
    card, _ = import_checkpoint(request("lerobot", source, tmp_path / "out", "pi05"))
    assert card.processing is not None
    assert card.processing.delta == (True,) * 5 + (False,)
    assert json.loads((tmp_path / "out" / "card.json").read_text())["processing"]["delta"] == [True] * 5 + [False]
