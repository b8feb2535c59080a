"""Axes, units, ranges and signs of a foreign policy against the robot's contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import edit_json, lerobot_folder, request, write_processors, write_robot
from safetensors.torch import load_file, save_file

from pirl_contract import Field
from pirl_server.interchange.checkpoints.commands import import_command
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.units_check import unusual_units

RANGE = 2.9
STATE = (*(Field(f"j{i}", "rad", -RANGE, RANGE) for i in range(6)), Field("finger", "m", 0.0, 0.04))
ACTION = (*(Field(f"j{i}.target", "rad", -RANGE, RANGE) for i in range(5)), Field("gripper", "1", -1.0, 1.0))
USUAL = {"state": ([-1.0] * 6 + [0.001], [1.0] * 6 + [0.039]), "action": ([-1.0] * 6, [1.0] * 6)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return lerobot_folder(tmp_path / "source", "pi05")


def set_ranges(source: Path, **changed: dict[int, tuple[float, float]]) -> None:
    """Quantiles of USUAL with some entries replaced."""
    for path in source.glob("policy_*.safetensors"):
        rows = load_file(path)
        for kind, feature in (("state", "observation.state"), ("action", "action")):
            low, high = ([*row] for row in USUAL[kind])
            for index, ends in changed.get(kind, {}).items():
                low[index], high[index] = ends
            rows |= {f"{feature}.q01": torch.tensor(low), f"{feature}.q99": torch.tensor(high)}
        save_file(rows, path)


def lines(source: Path, relative: bool = False, **said: Any) -> list[str]:
    contract = write_robot(source.parent / "arm.json", state=STATE, action=ACTION)
    if relative:
        edit_json(source / "config.json", lambda raw: raw.update(use_relative_actions=True))
    card, _ = import_checkpoint(request("lerobot", source, source.parent / "out", "pi05", contract=contract, **said))
    return unusual_units(card)


@pytest.mark.parametrize(
    ("shape", "size"), [([3, 240, 320], (240, 320)), ([240, 320, 3], (240, 320)),
     ([3, 240, 3], None), ([240, 3, 320], None), ([1, 240, 320], None), ([4, 240, 320], None), ([3, 240], None),
     ([2, 3, 240, 320], None)]
)  # fmt: skip
def test_an_image_s_axes_are_read_or_rejected(source: Path, shape: list[int], size: tuple[int, int] | None) -> None:
    """lerobot puts channels first only where the data set calls that axis 'channel' or 'channels'."""
    edit_json(source / "config.json", lambda raw: [
        each.update(shape=shape) for each in raw["input_features"].values() if each["type"] == "VISUAL"
    ])  # fmt: skip
    asked = request("lerobot", source, source.parent / "out", "pi05")
    if size is None:
        with pytest.raises(ValueError, match=r"observation\.images\.front' has shape \[.*write \[3, height, width\]"):
            import_checkpoint(asked)
        return
    assert {(camera.height, camera.width) for camera in import_checkpoint(asked)[0].contract.cameras} == {size}


@pytest.mark.parametrize(("size", "swapped"), [((240, 320), True), ((320, 240), False), ((28, 28), False)])
def test_a_camera_with_its_sides_swapped_is_rejected(source: Path, size: tuple[int, int], swapped: bool) -> None:
    edit_json(source / "config.json", lambda raw: [
        each.update(shape=[3, 320, 240]) for each in raw["input_features"].values() if each["type"] == "VISUAL"
    ])  # fmt: skip
    contract = write_robot(source.parent / "arm.json")
    edit_json(contract, lambda raw: raw["cameras"][1].update(height=size[0], width=size[1]))
    asked = request("lerobot", source, source.parent / "out", "pi05", contract=contract)
    if not swapped:
        import_checkpoint(asked)
        return
    with pytest.raises(ValueError, match=r"camera 'wrist' is 240x320 in the contract and 320x240 in config\.json"):
        import_checkpoint(asked)


def test_a_contract_that_no_robot_has_is_rejected_with_its_file(source: Path) -> None:
    contract = write_robot(source.parent / "arm.json")
    edit_json(contract, lambda raw: raw.update(rate_hz=0))
    with pytest.raises(ValueError, match=r"arm\.json': not a contract: rate_hz 0\.0 must be above 0"):
        import_checkpoint(request("lerobot", source, source.parent / "out", "pi05", contract=contract))
    edit_json(source / "config.json", lambda raw: raw.update(num_inference_steps=10**9))
    with pytest.raises(ValueError, match="denoise_steps 1000000000 must be 1 to 1000"):
        import_checkpoint(request("lerobot", source, source.parent / "out", "pi05"))


def test_statistics_within_the_limits_are_not_remarked_on(source: Path) -> None:
    """Negative control."""
    set_ranges(source)
    assert lines(source) == []


@pytest.mark.parametrize(
    ("kind", "index", "ends", "words"),
    [
        ("state", 0, (-80.0, 95.0), r"state 'j0' is -80 to 95 in the data, the contract has rad, limits -2.9 to 2.9"),
        ("action", 3, (-80.0, 95.0), "action 'j3.target' is -80 to 95"),
        ("state", 6, (0.0, 1.0), "state 'finger' is 0 to 1"),
        ("state", 6, (0.0, 40.0), "state 'finger' is 0 to 40"),
        ("action", 5, (0.0, 100.0), "action 'gripper' is 0 to 100"),
        ("state", 2, (60.0, 61.0), "state 'j2' is 60 to 61"),
    ],
)
def test_another_unit_is_rejected_by_the_entry_s_name(
    source: Path, kind: str, index: int, ends: tuple[float, float], words: str
) -> None:
    set_ranges(source, **{kind: {index: ends}})
    with pytest.raises(ValueError, match=words + ".*--norm-stats"):
        lines(source)


@pytest.mark.parametrize(
    ("kind", "index", "ends", "words"),
    [
        ("action", 5, (0.0, 1.0), "action 'gripper' .*one half exactly"),
        ("action", 5, (-1.0, 0.0), "action 'gripper' .*one half exactly"),
        ("action", 5, (-0.99, 0.02), "action 'gripper' .*one half exactly"),
        ("state", 6, (-0.04, 0.0), "state 'finger' .*with the other sign it would fit"),
        ("state", 1, (-7.0, 7.0), "state 'j1' .*is it the same unit"),
        ("state", 1, (0.01, 0.03), "state 'j1' .*hardly any of it"),
    ],
)
def test_what_may_be_another_range_or_sign_is_said(
    source: Path, kind: str, index: int, ends: tuple[float, float], words: str
) -> None:
    set_ranges(source, **{kind: {index: ends}})
    (line,) = lines(source)
    assert re.search(words, line), line


def test_a_displacement_is_compared_with_the_whole_range(source: Path) -> None:
    write_processors(source, "pi05", relative=True)
    set_ranges(source, action={0: (-5.0, 5.0), 1: (0.0, 0.01)})
    assert lines(source, relative=True) == []
    set_ranges(source, action={0: (-200.0, 200.0)})
    with pytest.raises(ValueError, match=r"action 'j0\.target' is -200 to 200"):
        lines(source, relative=True)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("j1.target", "'j1.target' is relative to state entry 0, which is 'j0'"),
        ("j0.delta", "'j0.delta' of the contract counts from something already"),
        ("j0.velocity", "'j0.velocity' of the contract counts from something already"),
        ("tcp_dx.from_command", "'tcp_dx.from_command' of the contract counts from something already"),
        ("left_tcp_dx", "'left_tcp_dx' of the contract counts from something already"),
    ],
)
def test_a_relative_action_that_would_count_twice_or_from_another_joint_is_rejected(
    source: Path, entry: str, said: str
) -> None:
    write_processors(source, "pi05", relative=True)
    edit_json(source / "config.json", lambda raw: raw.update(use_relative_actions=True))
    action = [Field(entry, "rad", -RANGE, RANGE), *(field for field in ACTION if field.name != entry)][: len(ACTION)]
    contract = write_robot(source.parent / "arm.json", state=STATE, action=action)
    with pytest.raises(ValueError, match=re.escape(said)):
        import_checkpoint(request("lerobot", source, source.parent / "out", "pi05", contract=contract))


def test_an_entry_without_limits_is_compared_with_what_its_unit_allows(source: Path) -> None:
    set_ranges(source, state={0: (-80.0, 95.0), 6: (0.0, 40.0)})
    contract = write_robot(source.parent / "arm.json", state=[Field(each.name, each.unit) for each in STATE])
    card, _ = import_checkpoint(request("lerobot", source, source.parent / "out", "pi05", contract=contract))
    assert [line.split(" is ")[0] for line in unusual_units(card)] == ["state 'j0'", "state 'finger'"]


def test_the_command_prints_what_to_check(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_ranges(source, action={5: (0.0, 1.0)})
    contract = write_robot(source.parent / "arm.json", state=STATE, action=ACTION)
    words = ["lerobot", str(source), "--out", str(source.parent / "out"), "--tokenizer", "bytes"]
    assert import_command([*words, "--contract", str(contract)]) == 0
    assert "check     action 'gripper' is 0 to 1" in capsys.readouterr().out
