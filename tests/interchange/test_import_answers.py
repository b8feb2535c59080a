"""What a person must say, may say, and is told: every question that a folder leaves open has one line of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import (
    STATS,
    lerobot_config,
    lerobot_folder,
    openpi_folder,
    request,
    weights_of,
    write_json,
    write_processors,
)
from safetensors.torch import load_file, save_file

from pirl_contract import Camera, Contract, Field, Observation
from pirl_server.interchange.checkpoints.commands import import_command, parse_delta
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.robot_contract import TEMPLATE
from pirl_server.interchange.checkpoints.tokenizer_file import sentencepiece_tokens
from pirl_server.policy.checkpoint import checkpoint_version, file_sha256, load_card, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard

ARM = Contract(
    "arm",
    (Camera("wrist", 30, 40), Camera("top", 48, 48)),
    tuple(Field(f"q{i}", "rad") for i in range(7)),
    tuple(Field(f"dq{i}", "rad") for i in range(6)),
    20.0,
)


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    (tmp_path / "arm.json").write_text(ARM.to_json())
    return tmp_path / "arm.json"


@pytest.fixture
def openpi(tmp_path: Path) -> Path:
    return openpi_folder(tmp_path / "openpi", "pi0")


@pytest.fixture
def lerobot(tmp_path: Path) -> Path:
    return lerobot_folder(tmp_path / "lerobot", "pi05")


def refused(words: str, asked: Any) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        import_checkpoint(asked)
    assert "\n" not in str(caught.value)
    assert not asked.out.exists()


def test_the_imported_policy_drives_the_robot_of_its_contract(openpi: Path, contract: Path, tmp_path: Path) -> None:
    cameras = {"base_0_rgb": "top", "left_wrist_0_rgb": "wrist"}
    asked = request("openpi", openpi, tmp_path / "out", "pi0", contract=contract, cameras=cameras)
    card, version = import_checkpoint(asked)
    assert card.contract == ARM
    policy = FlowPolicy.load(tmp_path / "out")
    assert policy.version == version
    images = {camera.name: np.full((camera.height, camera.width, 3), 90, np.uint8) for camera in ARM.cameras}
    state = np.linspace(-0.5, 0.5, 7, dtype=np.float32)
    seen = Observation(images, state, "pick up the cube", "arm", 0)
    chunk = policy.sample(seen, explore=False, seed=1).actions
    assert chunk.shape == (5, 6)
    assert np.isfinite(chunk).all()
    other = policy.sample(
        replace(seen, images=images | {"wrist": images["wrist"] + 100}), explore=False, seed=1
    ).actions
    assert np.abs(chunk - other).max() > 0


def test_without_a_contract_a_template_stands_in(openpi: Path, tmp_path: Path) -> None:
    card, _ = import_checkpoint(request("openpi", openpi, tmp_path / "out", "pi0"))
    assert card.contract.robot == TEMPLATE
    assert (card.contract.state_dim, card.contract.action_dim) == (7, 6)
    assert [camera.name for camera in card.contract.cameras] == ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"]
    assert Contract.from_json(card.contract.to_json()) == card.contract


def test_what_lerobot_says_needs_no_repetition(lerobot: Path, tmp_path: Path) -> None:
    write_processors(lerobot, "pi05", relative=True)
    write_json(lerobot / "config.json", lerobot_config("pi05") | {"use_relative_actions": True})
    card, _ = import_checkpoint(request("lerobot", lerobot, tmp_path / "out", "pi05"))
    how = card.processing
    assert how is not None
    assert (how.prompt, how.resize, how.pad, how.state.scheme) == ("pi05", "torch", -1, "quantile")
    assert how.delta == (True,) * 5 + (False,), "the gripper is excluded by a part of its name"
    assert (card.execute_horizon, card.denoise_steps, card.model.max_tokens) == (3, 10, 200)
    assert [slot.camera for slot in how.slots] == ["front", "wrist", None]
    assert [(camera.height, camera.width) for camera in card.contract.cameras] == [(28, 28)] * 2


def test_a_pi05_without_state_in_its_prompt_can_be_said(lerobot: Path, tmp_path: Path) -> None:
    """lerobot's processor always writes the state; whoever knows that the weights never saw one says so."""
    asked = request("lerobot", lerobot, tmp_path / "out", "pi05", prompt="pi05_without_state")
    processing = import_checkpoint(asked)[0].processing
    assert processing is not None
    assert (processing.prompt, processing.clean_prompt) == ("pi05_without_state", False)


def test_statistics_among_the_weights_of_older_versions(tmp_path: Path) -> None:
    """lerobot before 0.4: buffers instead of processors, other field names."""
    rows = {kind: {name: torch.tensor(row) for name, row in STATS[kind].items()} for kind in STATS}
    source = lerobot_folder(tmp_path / "old", "pi0", weights_of("pi0"))
    weights = load_file(source / "model.safetensors")
    for place, kind in (
        ("normalize_inputs.buffer_observation_state", "state"),
        ("unnormalize_outputs.buffer_action", "actions"),
    ):
        weights |= {f"{place}.{name}": rows[kind][name] for name in ("mean", "std")}
    save_file(weights, source / "model.safetensors")
    for path in source.glob("policy_*"):
        path.unlink()
    config = lerobot_config("pi0")
    for now, older in (("image_resolution", "resize_imgs_with_padding"), ("num_inference_steps", "num_steps")):
        config[older] = config.pop(now)
    config.pop("use_relative_actions")
    write_json(source / "config.json", config)
    card, _ = import_checkpoint(request("lerobot", source, tmp_path / "out", "pi0"))
    assert card.processing is not None
    assert card.processing.state.first == pytest.approx(STATS["state"]["mean"])
    assert card.processing.action.second == pytest.approx(STATS["actions"]["std"])
    write_json(source / "config.json", config | {"adapt_to_pi_aloha": True})
    refused("adapt_to_pi_aloha", request("lerobot", source, tmp_path / "other", "pi0"))
    save_file({name: torch.full_like(each, torch.inf) if "buffer" in name else each for name, each in weights.items()},
              source / "model.safetensors")  # fmt: skip
    write_json(source / "config.json", config)
    refused("--norm-stats", request("lerobot", source, tmp_path / "other", "pi0"))


def test_questions_that_a_folder_leaves_open(openpi: Path, tmp_path: Path) -> None:
    asked = request("openpi", openpi, tmp_path / "out", "pi0")
    refused("--delta", replace(asked, delta=None))
    refused("--delta has 2 entries", replace(asked, delta=(True, False)))
    refused("prompt pi05 does not go with pi0", replace(asked, prompt="pi05"))
    refused("--horizon 9: config.json says 5", replace(asked, horizon=9))
    refused("--execute-horizon 6", replace(asked, execute_horizon=6))
    refused("has no statistics of 'leg'; there are: maker/arm", replace(asked, asset_id="leg"))
    refused("is not a folder", replace(asked, source=tmp_path / "nowhere"))
    (openpi / "config.json").unlink()
    refused("--horizon N", asked)
    pi05 = request("openpi", openpi_folder(tmp_path / "pi05", "pi05"), tmp_path / "out", "pi05", prompt=None)
    refused("--prompt pi05 or pi05_without_state", pi05)


def test_statistics_that_are_several_or_none(openpi: Path, tmp_path: Path) -> None:
    asked = request("openpi", openpi, tmp_path / "out", "pi0")
    other = {
        "norm_stats": {kind: {name: [2 * x for x in row] for name, row in each.items()} for kind, each in STATS.items()}
    }
    write_json(openpi / "assets" / "leg" / "norm_stats.json", other)
    refused("statistics of leg, maker/arm: choose one with --asset-id", asked)
    card, _ = import_checkpoint(replace(asked, asset_id="leg"))
    assert card.processing is not None
    assert card.processing.state.second == pytest.approx([2 * x for x in STATS["state"]["std"]])
    for name in ("leg", "maker/arm"):
        (openpi / "assets" / name / "norm_stats.json").rename(openpi / f"{name.replace('/', '-')}.json")
    refused("give those of the data set with --norm-stats FILE", replace(asked, out=tmp_path / "b"))
    given, _ = import_checkpoint(replace(asked, out=tmp_path / "b", norm_stats=openpi / "leg.json"))
    assert given.processing == card.processing


def test_cameras_without_a_place(openpi: Path, contract: Path, tmp_path: Path) -> None:
    asked = request("openpi", openpi, tmp_path / "out", "pi0", contract=contract)
    refused("camera 'wrist' of the contract feeds no input", asked)
    refused("the contract's cameras are wrist, top", replace(asked, cameras={"base_0_rgb": "side"}))
    refused("the model's images are base_0_rgb", replace(asked, cameras={"front": "top"}))
    both = {"base_0_rgb": "top", "left_wrist_0_rgb": "top", "right_wrist_0_rgb": "wrist"}
    refused("feeds base_0_rgb and left_wrist_0_rgb", replace(asked, cameras=both))
    contract.write_text(replace(ARM, state=ARM.state[:3]).to_json())
    refused("3 state and 6 action dimensions, the checkpoint 7 and 6", asked)


def sentencepiece(pieces: int) -> bytes:
    """A ModelProto with so many pieces and nothing to tokenise with."""
    piece = b"\x0a\x03abc\x15\x00\x00\x00\x00"
    return b"".join(b"\x0a" + bytes([len(piece)]) + piece for _ in range(pieces)) + b"\x12\x02\x20\x00"


@pytest.mark.parametrize("kind", ["sentencepiece", "tokenizer_json"])
def test_a_tokenizer_file_belongs_to_the_checkpoint(tmp_path: Path, openpi: Path, kind: str) -> None:
    name = {"sentencepiece": "tokenizer.model", "tokenizer_json": "tokenizer.json"}[kind]
    content = sentencepiece(512)
    if kind == "tokenizer_json":
        content = json.dumps({"model": {"vocab": {f"t{i}": i for i in range(512)}}}).encode()
    (tmp_path / "given").write_bytes(content)
    asked = request("openpi", openpi, tmp_path / "out", "pi0", tokenizer=str(tmp_path / "given"))
    card, version = import_checkpoint(asked)
    assert card.processing is not None
    assert (card.processing.tokenizer.kind, card.processing.tokenizer.vocabulary) == (kind, 512)
    assert card.processing.tokenizer.sha256 == file_sha256(tmp_path / "out" / name)
    card, weights, _ = load_checkpoint(tmp_path / "out")
    save_checkpoint(tmp_path / "trained", card, weights, parent=tmp_path / "out")
    assert (tmp_path / "trained" / name).read_bytes() == content
    with pytest.raises(ValueError, match=r"no tokenizer\.model or tokenizer\.json"):
        save_checkpoint(tmp_path / "alone", card, weights)
    (tmp_path / "out" / name).write_bytes(content + b"\x1a\x00")
    assert checkpoint_version(tmp_path / "out") != version
    with pytest.raises(ValueError, match="is not the tokenizer of the card"):
        load_card(tmp_path / "out")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, openpi: Path) -> None:
    asked = request("openpi", openpi, tmp_path / "out", "pi0")
    (tmp_path / "given").write_bytes(sentencepiece(300))
    refused("300 tokens, the model's embedding 512 rows", replace(asked, tokenizer=str(tmp_path / "given")))
    (tmp_path / "given").write_bytes(b"hello")
    refused("neither a sentencepiece model", replace(asked, tokenizer=str(tmp_path / "given")))
    refused("can't be read", replace(asked, tokenizer=str(tmp_path / "nothing")))


def test_only_a_whole_protobuf_has_pieces() -> None:
    whole = sentencepiece(40)
    assert sentencepiece_tokens(whole) == 40
    assert all(sentencepiece_tokens(whole[:cut]) < 40 for cut in range(len(whole) - 4))
    assert sentencepiece_tokens(b"\xff" * 100_000) == 0


def test_the_command_prints_what_to_compare(openpi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["openpi", str(openpi), "--out", str(tmp_path / "out"), "--tokenizer", "bytes", "--delta", "1,1,1,1,1,0"]
    assert import_command(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "chunk     plays 2 of 5 actions, 10 denoise steps"
    assert out[5] == "action    6 of 8, zscore, relative 111110"
    assert Contract.from_json(out[-2]).robot == TEMPLATE
    assert out[-1] == f"{tmp_path / 'out'}: version {checkpoint_version(tmp_path / 'out')}"
    assert ModelCard.from_json((tmp_path / "out" / "card.json").read_text()).contract.robot == TEMPLATE


def test_delta_is_ones_and_zeros() -> None:
    assert parse_delta("none") == ()
    assert parse_delta("1,0") == (True, False)
    for wrong in ("", "1;0", "yes", "1,2", "1,"):
        with pytest.raises(ValueError, match="--delta"):
            parse_delta(wrong)
