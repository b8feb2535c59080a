"""What only a SmolVLA folder of lerobot has: an older layout, its keys of config.json, its tokenizer and widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import STATS, drop_step, edit_config, edit_step, golden, lerobot_folder, openpi_folder, request, write_json
from safetensors.torch import load_file, save_file

from pirl_contract import Observation
from pirl_server.interchange.checkpoints.exporter import export_checkpoint
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.smolvla_names import HEAD
from pirl_server.interchange.checkpoints.tensor_folder import TensorFolder
from pirl_server.policy.checkpoint import SOURCE, load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard

STATE_DIM, ACTION_DIM, HORIZON, ROBOT = 8, 7, 6, (7, 6)


def take_in(source: Path, out: Path, **changes: Any) -> ModelCard:
    return import_checkpoint(request("lerobot", source, out, "smolvla", **changes))[0]


def older_folder(folder: Path, part: str = "", extra: str = "") -> Path:
    """As lerobot 0.3 wrote it: no pipelines, statistics among the weights."""
    lerobot_folder(folder, "smolvla")
    for path in folder.glob("policy_*"):
        path.unlink()
    tensors = load_file(folder / "model.safetensors")
    named = {f"model.{part}" + name.removeprefix("model."): value for name, value in tensors.items()}
    state, action = "normalize_inputs.buffer_observation_state.", "unnormalize_outputs.buffer_action."
    for statistic in ("mean", "std"):
        named[state + statistic] = torch.tensor(STATS["state"][statistic])
        named[action + statistic] = torch.tensor(STATS["actions"][statistic])
        if extra:
            named[f"normalize_inputs.{extra}_buffer_observation_state.{statistic}"] = torch.full((6,), torch.inf)
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    return folder


def observation(seed: int) -> Observation:
    draw = np.random.default_rng(seed)
    images = {name: draw.integers(0, 256, (28, 28, 3), np.uint8) for name in ("front", "wrist")}
    return Observation(images, draw.normal(size=ROBOT[0]).astype(np.float32), "push it")


@pytest.mark.parametrize("part", ["", "_orig_mod."], ids=["plain", "compiled"])
def test_the_older_layout_is_the_same_policy(part: str, tmp_path: Path) -> None:
    now = take_in(lerobot_folder(tmp_path / "now", "smolvla"), tmp_path / "a")
    before = take_in(older_folder(tmp_path / "before", part, extra="so100-blue"), tmp_path / "b")
    assert before.processing == now.processing
    assert now.processing is not None
    assert (now.processing.prompt, now.processing.resize, now.processing.clean_prompt) == (
        "smolvla", "torch_left_top", False,
    )  # fmt: skip
    assert now.processing.state.first == tuple(np.float32(STATS["state"]["mean"]))
    chunks = [FlowPolicy.load(tmp_path / name).sample(observation(1), explore=False, seed=2) for name in "ab"]
    np.testing.assert_array_equal(chunks[0].actions, chunks[1].actions)
    assert chunks[0].actions.shape == (HORIZON, ROBOT[1])
    export_checkpoint("lerobot", tmp_path / "b", tmp_path / "back")
    theirs, ours = (TensorFolder.open(tmp_path / name) for name in ("before", "back"))
    assert theirs.layouts == ours.layouts
    assert all(torch.equal(theirs.get(name), ours.get(name)) for name in theirs.layouts)


def test_a_folder_that_was_never_lerobot_s_is_written_as_it_writes_them(tmp_path: Path) -> None:
    """A trained checkpoint without its source: config, pipelines, names; importing that again gives the same policy."""
    take_in(lerobot_folder(tmp_path / "source", "smolvla"), tmp_path / "ours")
    (tmp_path / "ours" / SOURCE).unlink()
    assert "made from" in " ".join(export_checkpoint("lerobot", tmp_path / "ours", tmp_path / "made"))
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["type"] == "smolvla"
    assert config["resize_imgs_with_padding"] == [32, 32]
    assert (config["num_steps"], config["num_vlm_layers"], config["self_attn_every_n_layers"]) == (10, 4, 2)
    assert int(48 * config["expert_width_multiplier"]) == 36
    assert not {"image_resolution", "num_inference_steps", "use_relative_actions"} & set(config)
    steps = json.loads((tmp_path / "made" / "policy_preprocessor.json").read_text())["steps"]
    assert [step["registry_name"] for step in steps] == [
        "rename_observations_processor", "to_batch_processor", "smolvla_new_line_processor", "tokenizer_processor",
        "device_processor", "normalizer_processor",
    ]  # fmt: skip
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    assert set(tensors) == {f"model.{name}" for name in golden("smolvla", "weights/")}
    assert not tensors[f"model.{HEAD}"].any()
    take_in(tmp_path / "made", tmp_path / "again")
    chunks = [
        FlowPolicy.load(tmp_path / each).sample(observation(1), explore=True, seed=2) for each in ("ours", "again")
    ]
    np.testing.assert_array_equal(chunks[0].chain, chunks[1].chain)


def test_lerobot_s_smolvla_has_no_relative_actions(tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "smolvla")
    card = take_in(source, tmp_path / "ours", delta=(True,) * 5 + (False,))
    assert card.processing is not None
    assert card.processing.delta
    weights = load_checkpoint(tmp_path / "ours")[1]
    save_checkpoint(tmp_path / "trained", card, weights, parent=tmp_path / "ours")
    (tmp_path / "trained" / SOURCE).unlink()
    with pytest.raises(ValueError, match="relative to the state, which lerobot's SmolVLA does not know"):
        export_checkpoint("lerobot", tmp_path / "trained", tmp_path / "out")
    with pytest.raises(ValueError, match="openpi has no smolvla: it is lerobot's"):
        export_checkpoint("openpi", tmp_path / "ours", tmp_path / "out")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "another attention": ({"attention_mode": "self_attn"}, "attention_mode"),
    "image tokens": ({"add_image_special_tokens": True}, "add_image_special_tokens"),
    "aloha": ({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha"),
    "other weights": ({"type": "pi0"}, "says pi0, the weights are smolvla"),
    "another resolution": ({"resize_imgs_with_padding": [64, 64]}, "images of 64 px, the weights are for 32"),
    "no heads": ({"head_dim": None}, '"head_dim"'),
    "no heads in vision": ({"vision_heads": None}, '"vision_heads"'),
    "every third layer": ({"self_attn_every_n_layers": 3}, "the model's is"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_would_be_another_network_is_named(fault: str, tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "smolvla")
    values, words = FAULTS[fault]
    edit_config(source, **values)
    with pytest.raises(ValueError, match=words):
        take_in(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pipeline_without_its_newline_is_asked_for(tmp_path: Path) -> None:
    source = lerobot_folder(tmp_path / "source", "smolvla")
    drop_step(source, "smolvla_new_line_processor")
    with pytest.raises(ValueError, match="give --prompt smolvla"):
        take_in(source, tmp_path / "out")
    assert take_in(source, tmp_path / "out", prompt="smolvla").family == "smolvla"
    edit_step(source, "tokenizer_processor", padding_side="left")
    with pytest.raises(ValueError, match="padding_side"):
        take_in(source, tmp_path / "other", prompt="smolvla")


def test_an_expert_of_fewer_layers_is_rejected(tmp_path: Path) -> None:
    weights = {
        name: value for name, value in golden("smolvla", "weights/").items() if "lm_expert.layers.3." not in name
    }
    source = lerobot_folder(tmp_path / "source", "smolvla", weights)
    with pytest.raises(ValueError, match="the language model has 4 layers, the expert 3"):
        take_in(source, tmp_path / "out")


def test_it_is_no_folder_of_openpi(tmp_path: Path) -> None:
    source = openpi_folder(tmp_path / "source", "smolvla")
    with pytest.raises(ValueError, match="openpi has no smolvla: it is lerobot's"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "smolvla"))


def test_projections_of_two_dtypes_stay_what_they_are(tmp_path: Path) -> None:
    """As lerobot's base has them: the cross-attention's keys and values alone in float32."""
    wide = ("layers.1.self_attn.k_proj", "layers.1.self_attn.v_proj", "layers.3.self_attn.k_proj")
    weights = {
        name: value if "lm_expert" in name and any(each in name for each in wide) else value.bfloat16()
        for name, value in golden("smolvla", "weights/").items()
    }
    take_in(lerobot_folder(tmp_path / "source", "smolvla", weights), tmp_path / "out")
    stored = load_checkpoint(tmp_path / "out")[1]
    assert stored["expert.layers.1.cross_attn.k_proj.weight"].dtype == torch.float32
    assert stored["expert.layers.3.cross_attn.v_proj.weight"].dtype == torch.bfloat16
    sample = FlowPolicy.load(tmp_path / "out").sample(observation(3), explore=False, seed=1)
    assert np.isfinite(sample.actions).all()


def test_a_tokenizer_without_special_tokens_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocabulary = {f"w{i}": i for i in range(97)}
    write_json(path, {"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": []}})
    source = lerobot_folder(tmp_path / "source", "smolvla")
    take_in(source, tmp_path / "out", tokenizer=str(path))
    with pytest.raises(ValueError, match="no token for pad and bos: neither a PaliGemma nor a SmolVLM file"):
        FlowPolicy.load(tmp_path / "out")
