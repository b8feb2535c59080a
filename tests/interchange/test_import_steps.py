"""Processor steps, modes and rename maps: carried out as written, or rejected by name; never silently another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import (
    STATS,
    drop_step,
    edit_config,
    edit_json,
    edit_step,
    lerobot_folder,
    request,
    write_processors,
    write_robot,
)
from safetensors.torch import load_file, save_file

from pirl_server.interchange.checkpoints.commands import import_command
from pirl_server.interchange.checkpoints.exporter import export_checkpoint
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.pretrained_processor import PretrainedProcessor

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
NESTED = [["a", "b", "c", "d", "e", "left_gripper"]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return lerobot_folder(tmp_path / "source", "pi05")


def imported(source: Path, family: Any = "pi05", **said: Any) -> ModelCard:
    return import_checkpoint(request("lerobot", source, source.parent / "out", family, **said))[0]


def rejected(words: str, source: Path, **said: Any) -> None:
    with pytest.raises(ValueError, match=words):
        imported(source, **said)


def processor(card: ModelCard) -> PretrainedProcessor:
    return PretrainedProcessor(card, None)


def modes(source: Path, **norm_map: str) -> None:
    for name in ("normalizer_processor", "unnormalizer_processor"):
        edit_step(source, name, norm_map=norm_map)


def test_a_step_that_is_off_decides_nothing(source: Path) -> None:
    """Data sets of some robots list their action names as a list in a list."""
    edit_step(source, "relative_actions_processor", action_names=NESTED)
    how = imported(source).processing
    assert how is not None
    assert how.delta == ()


def test_nested_names_of_a_step_that_is_on_are_rejected(source: Path) -> None:
    """lerobot reads the list's text as one name and keeps dimension 0 absolute."""
    write_processors(source, "pi05", relative=True)
    edit_config(source, use_relative_actions=True)
    edit_step(source, "relative_actions_processor", action_names=NESTED)
    rejected("relative_actions_processor: 'action_names.0'", source)


def test_relative_actions_must_be_undone_behind_the_model(source: Path) -> None:
    write_processors(source, "pi05", relative=True)
    edit_config(source, use_relative_actions=True)
    edit_step(source, "absolute_actions_processor", enabled=False)
    rejected("relative_actions_processor on, .*absolute_actions_processor off", source)
    drop_step(source, "absolute_actions_processor", AFTER)
    rejected("relative_actions_processor on, .*absolute_actions_processor off", source)


def test_the_relative_step_under_its_older_name(source: Path) -> None:
    """lerobot 0.5.1 registers it as delta_actions_processor."""
    write_processors(source, "pi05", relative=True)
    edit_config(source, use_relative_actions=True)
    edit_json(source / BEFORE, lambda raw: [
        step.update(registry_name="delta_actions_processor")
        for step in raw["steps"] if step["registry_name"] == "relative_actions_processor"
    ])  # fmt: skip
    how = imported(source).processing
    assert how is not None
    assert how.delta == (True,) * 5 + (False,)


def test_a_type_that_the_table_leaves_out_is_left_alone(source: Path) -> None:
    modes(source, VISUAL="IDENTITY", ACTION="MEAN_STD")
    made = processor(imported(source))
    actions = made.to_actions(torch.zeros(1, 5, 8), np.zeros((1, 7), np.float32))
    np.testing.assert_allclose(actions[0, 0], STATS["actions"]["mean"], atol=1e-6)
    np.testing.assert_allclose(made.features(np.full((1, 7), 0.5, np.float32))[0], 0.5)


@pytest.mark.parametrize(("mode", "ends"), [("MIN_MAX", ("min", "max")), ("QUANTILE10", ("q10", "q90"))])
def test_other_ranges_are_taken_from_their_own_statistics(source: Path, mode: str, ends: tuple[str, str]) -> None:
    modes(source, VISUAL="IDENTITY", STATE=mode, ACTION=mode)
    rejected(f"no {ends[0]} and {ends[1]} of the state", source)
    for path in source.glob("policy_*.safetensors"):
        rows = load_file(path)
        for feature, width in (("observation.state", 7), ("action", 6)):
            rows |= {f"{feature}.{name}": torch.full((width,), value) for name, value in zip(ends, (-4.0, 8.0))}
        save_file(rows, path)
    made = processor(imported(source))
    np.testing.assert_allclose(made.features(np.full((1, 7), 2.0, np.float32))[0], 0.0, atol=1e-6)
    actions = made.to_actions(torch.ones(1, 5, 8), np.zeros((1, 7), np.float32))
    np.testing.assert_allclose(actions[0, 0], 8.0)


def renamed_step(name: str) -> Callable[[Path], None]:
    return lambda source: edit_json(source / BEFORE, lambda raw: raw["steps"][1].update(registry_name=name))


REJECTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown mode": (lambda source: modes(source, STATE="LOG", ACTION="QUANTILES"), r"norm_map\.STATE"),
    "unknown type": (lambda source: modes(source, GRIPPER="MEAN_STD", ACTION="QUANTILES"), r"norm_map\.GRIPPER"),
    "two ways": (
        lambda source: edit_step(source, "unnormalizer_processor", norm_map={"ACTION": "MEAN_STD"}),
        "normalise actions in two ways",
    ),
    "images": (lambda source: modes(source, VISUAL="MEAN_STD", STATE="QUANTILES", ACTION="QUANTILES"), "VISUAL MEAN"),
    "features without the state": (
        lambda source: edit_step(
            source, "normalizer_processor", features={"action": {"type": "ACTION", "shape": [6]}}
        ),
        r"lists no STATE feature observation\.state",
    ),
    "some keys only": (
        lambda source: edit_step(source, "normalizer_processor", normalize_observation_keys=["observation.state"]),
        "normalize_observation_keys",
    ),
    "no normaliser": (lambda source: drop_step(source, "normalizer_processor"), "'normalizer_processor' is missing"),
    "no un-normaliser": (
        lambda source: drop_step(source, "unnormalizer_processor", AFTER), "'unnormalizer_processor' is missing",
    ),
    "rounding": (lambda source: edit_step(source, "device_processor", float_dtype="bfloat16"), "float_dtype"),
    "left padding": (lambda source: edit_step(source, "tokenizer_processor", padding_side="left"), "padding_side"),
    "unknown step": (renamed_step("action_smoothing_processor"), "'action_smoothing_processor' is not supported"),
    "renamed after": (
        lambda source: edit_json(source / AFTER, lambda raw: raw["steps"].insert(0, {
            "registry_name": "rename_observations_processor", "config": {"rename_map": {"a": "b"}}
        })), "rename_observations_processor: 'rename_map'",
    ),
    "another time embedding": (lambda source: edit_config(source, max_period=8.0), "max_period"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REJECTED)
def test_what_can_not_be_carried_out_is_rejected_by_name(source: Path, fault: str) -> None:
    damage, words = REJECTED[fault]
    damage(source)
    rejected(words, source)


def test_a_pi0_pipeline_without_its_newline_defines_no_prompt(tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "pi0")
    drop_step(source, "pi0_new_line_processor")
    with pytest.raises(ValueError, match="without its prompt format: give --prompt pi0"):
        imported(source, "pi0")


def test_the_tokenizer_step_says_how_long_a_prompt_may_be(source: Path) -> None:
    edit_step(source, "tokenizer_processor", max_length=100)
    assert imported(source).model.max_tokens == 100


def images(source: Path, *names: str) -> None:
    edit_json(source / "config.json", lambda raw: raw["input_features"].update(
        {f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 28, 28]} for name in names}
    ))  # fmt: skip
    edit_json(source / "config.json", lambda raw: [
        raw["input_features"].pop(f"observation.images.{name}") for name in ("front", "wrist") if name not in names
    ])  # fmt: skip


def test_a_rename_map_says_which_camera_feeds_which_input(source: Path) -> None:
    images(source, "base_0_rgb", "left_wrist_0_rgb")
    to = {"front": "left_wrist_0_rgb", "wrist": "base_0_rgb"}
    keys = {f"observation.images.{robot}": f"observation.images.{model}" for robot, model in to.items()}
    edit_step(source, "rename_observations_processor", rename_map=keys)
    card = imported(source, contract=write_robot(source.parent / "arm.json"))
    assert card.processing is not None
    feeds = {slot.key: slot.camera for slot in card.processing.slots}
    assert feeds == {"base_0_rgb": "wrist", "left_wrist_0_rgb": "front", "empty_camera_0": None}
    template = import_checkpoint(request("lerobot", source, source.parent / "template", "pi05"))[0]
    assert [camera.name for camera in template.contract.cameras] == ["wrist", "front"]


def test_cameras_that_change_places_do_so(source: Path) -> None:
    front, wrist = "observation.images.front", "observation.images.wrist"
    edit_step(source, "rename_observations_processor", rename_map={front: wrist, wrist: front})
    how = imported(source, contract=write_robot(source.parent / "arm.json")).processing
    assert how is not None
    assert [(slot.key, slot.camera) for slot in how.slots][:2] == [("front", "wrist"), ("wrist", "front")]
    said = import_checkpoint(
        request("lerobot", source, source.parent / "said", "pi05", contract=source.parent / "arm.json",
                cameras={"front": "front", "wrist": "wrist"})
    )[0].processing  # fmt: skip
    assert said is not None
    assert [slot.camera for slot in said.slots][:2] == ["front", "wrist"], "a person's word goes first"


@pytest.mark.parametrize(
    ("rename_map", "words"),
    [
        ({"observation.state": "observation.joints"}, "turns 'observation.state', which the model reads"),
        ({"observation.images.front": "observation.images.top"}, "turns 'observation.images.front'"),
        ({"a": "observation.state", "b": "observation.state"}, "makes 'observation.state' of two features"),
        (["front"], "rename_map"),
    ],
)
def test_a_rename_map_that_loses_something_is_rejected(source: Path, rename_map: Any, words: str) -> None:
    edit_step(source, "rename_observations_processor", rename_map=rename_map)
    rejected(words, source)


def older(source: Path, *, width: int = 32) -> None:
    """As lerobot before 0.5.1 writes it: nothing about relative actions, and nothing else tells the versions apart."""
    drop_step(source, "relative_actions_processor")
    drop_step(source, "absolute_actions_processor", AFTER)
    edit_config(source, use_relative_actions=None, max_state_dim=width)
    edit_step(source, "pi05_prepare_state_tokenizer_processor_step", max_state_dim=width)


def text(card: ModelCard) -> str:
    ids, mask = processor(card).prompts(["push_it"], np.zeros((1, 7), np.float32))
    return bytes(ids[mask][1:].tolist()).decode()


def test_whether_a_prompt_is_padded_must_be_said_where_nothing_tells(source: Path) -> None:
    older(source)
    rejected("give --prompt-state robot or --prompt-state padded", source)
    plain = imported(source, prompt_state="robot")
    assert text(plain) == "Task: push it, State: " + " ".join(["128"] * 7) + ";\nAction: "
    padded = import_checkpoint(request("lerobot", source, source.parent / "padded", "pi05", prompt_state="padded"))[0]
    assert text(padded) == "Task: push it, State: " + " ".join(["128"] * 32) + ";\nAction: "
    assert padded.processing is not None
    assert padded.processing.prompt_state_dim == 32
    assert ModelCard.from_json(padded.to_json()) == padded
    assert "prompt_state_dim" not in plain.to_json(), "a card that says nothing new keeps its text, so its version"


def test_the_robot_s_entries_come_before_the_zeros(source: Path) -> None:
    older(source, width=9)
    card = imported(source, prompt_state="padded")
    made, state = processor(card), np.array([STATS["state"]["q01"]], np.float32)
    ids, mask = made.prompts(["go"], state)
    assert bytes(ids[mask][1:].tolist()).decode() == "Task: go, State: 0 0 0 0 0 0 0 128 128;\nAction: "


def test_versions_that_are_known_are_not_asked_about(source: Path) -> None:
    """Negative control: 0.5.1 and later write use_relative_actions; a state as wide as the model has no padding."""
    edit_config(source, max_state_dim=32)
    edit_step(source, "pi05_prepare_state_tokenizer_processor_step", max_state_dim=32)
    assert text(imported(source)).count("128") == 7
    older(source, width=7)
    equal = import_checkpoint(request("lerobot", source, source.parent / "equal", "pi05"))[0]
    assert text(equal).count("128") == 7


def test_a_padded_prompt_is_exported_to_its_own_layout_only(source: Path) -> None:
    older(source)
    imported(source, prompt_state="padded")
    assert export_checkpoint("lerobot", source.parent / "out", source.parent / "back") == []
    with pytest.raises(ValueError, match="prompts have 32 state entries"):
        export_checkpoint("openpi", source.parent / "out", source.parent / "other")


@pytest.mark.parametrize("choice", ["robot", "padded"])
def test_prompt_state_is_for_prompts_with_a_state(tmp_path: Path, choice: str) -> None:
    source = lerobot_folder(tmp_path / "source", "pi0")
    with pytest.raises(ValueError, match=f"--prompt-state {choice} is for pi05 prompts of lerobot, not for pi0"):
        imported(source, "pi0", prompt_state=choice)


def test_the_command_says_how_many_state_entries_a_prompt_has(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older(source)
    words = ["lerobot", str(source), "--out", str(source.parent / "out"), "--tokenizer", "bytes"]
    assert import_command([*words, "--prompt-state", "padded", "--instruction", "push the cube"]) == 0
    assert "prompt    pi05 with 32 state entries," in capsys.readouterr().out
    assert ModelCard.from_json((source.parent / "out" / "card.json").read_text()).instructions == ("push the cube",)
