"""Folders that are given by mistake: what each is, is said, and what to give instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import lerobot_config, lerobot_folder, openpi_folder, request, shard, weights_of, write_json
from safetensors.torch import save_file

from pirl_server.interchange.checkpoints.importer import import_checkpoint

Build = Callable[[Path], Path]


def adapter(folder: Path) -> Path:
    folder.mkdir()
    write_json(folder / "config.json", lerobot_config("pi05") | {"use_peft": True})
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 8})
    save_file({"base_model.model.q_proj.lora_A.weight": torch.zeros(8, 64)}, folder / "adapter_model.safetensors")
    return folder


def adapter_beside_weights(folder: Path) -> Path:
    lerobot_folder(folder, "pi05")
    write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    return folder


def holding(*names: str) -> Build:
    """A folder with these files and nothing else."""

    def build(folder: Path) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"PK")
        return folder

    return build


def above(*below: str) -> Build:
    def build(folder: Path) -> Path:
        for name in below:
            lerobot_folder(folder / name, "pi05")
        return folder

    return build


def without_index(folder: Path) -> Path:
    shard(lerobot_folder(folder, "pi05"))
    (folder / "model.safetensors.index.json").unlink()
    return folder


def ours(folder: Path) -> Path:
    import_checkpoint(request("lerobot", lerobot_folder(folder, "pi05"), folder.parent / "ours", "pi05"))
    return folder.parent / "ours"


def looping(folder: Path) -> Path:
    folder.mkdir()
    os.symlink(folder, folder / "again")
    return folder


KNOWN: dict[str, tuple[Build, str]] = {
    "adapter": (adapter, "is an adapter .*merge it"),
    "adapter beside weights": (adapter_beside_weights, "is an adapter .*merge it"),
    "pickle": (holding("full_weights.pt"), "'full_weights.pt', a pickle of torch.*convert"),
    "pickle below": (holding("actor/model_state_dict/full_weights.pt"), "'actor/model_state_dict/full_weights.pt'"),
    "pytorch_model.bin": (holding("config.json", "pytorch_model.bin"), "'pytorch_model.bin', a pickle of torch"),
    "step folder": (above("pretrained_model"), "folder above: give '.*/pretrained_model'"),
    "run folder": (above("checkpoints/020000/pretrained_model"), "give '.*/checkpoints/020000/pretrained_model'"),
    "several steps": (above("010000/pretrained_model", "020000/pretrained_model"), "010000/.* or '.*020000/"),
    "training state": (
        holding("training_state/optimizer_state.safetensors"), "no checkpoint there",
    ),
    "in the training state": (holding("optimizer_state.safetensors"), "is a training state .*pretrained_model"),
    "jax": (holding("params/_METADATA", "params/manifest.ocdbt"), "is a JAX checkpoint of openpi: convert"),
    "shards without an index": (without_index, "model-00001-of-00002.safetensors and no model.safetensors.index.json"),
    "distributed": (holding(".metadata", "__0_0.distcp"), "is a distributed checkpoint"),
    "data set": (holding("meta/info.json", "data/chunk-000/file-000.parquet"), "is a data set of lerobot"),
    "ours": (ours, "is a checkpoint of pirl already"),
    "another name": (holding("policy.safetensors"), "has policy.safetensors where model.safetensors is expected"),
    "nothing": (holding("README.md"), "model.safetensors' is missing"),
    "a loop of links": (looping, "model.safetensors' is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("stack", ["lerobot", "openpi"])
def test_a_wrong_folder_is_known_by_sight(tmp_path: Path, stack: Any, kind: str) -> None:
    build, words = KNOWN[kind]
    source = build(tmp_path / "source")
    with pytest.raises(ValueError, match=words) as caught:
        import_checkpoint(request(stack, source, tmp_path / "out", "pi05"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("source/model.safetensors", "is a file: give the folder that holds it, '.*source'"),
        ("nowhere", "is not a folder"),
    ],
)
def test_a_path_that_is_no_folder(tmp_path: Path, given: str, words: str) -> None:
    lerobot_folder(tmp_path / "source", "pi05")
    with pytest.raises(ValueError, match=words):
        import_checkpoint(request("lerobot", tmp_path / given, tmp_path / "out", "pi05"))


def test_a_hub_s_name_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'lerobot/pi05_base' .*download that first"):
        import_checkpoint(request("lerobot", Path("lerobot/pi05_base"), tmp_path / "out", "pi05"))


def test_the_other_program_s_folder_is_named(tmp_path: Path) -> None:
    lerobot, openpi = lerobot_folder(tmp_path / "a", "pi05"), openpi_folder(tmp_path / "b", "pi05")
    with pytest.raises(ValueError, match="is lerobot's: import it with pirl import lerobot"):
        import_checkpoint(request("openpi", lerobot, tmp_path / "out", "pi05"))
    with pytest.raises(ValueError, match="is openpi's: import it with pirl import openpi"):
        import_checkpoint(request("lerobot", openpi, tmp_path / "out", "pi05"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_a_wrapper_s_prefix_is_named_with_the_tensor(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + name: value for name, value in weights_of("pi05").items()}
    source = openpi_folder(tmp_path / "source", "pi05", wrapped)
    with pytest.raises(ValueError, match=f"tensor '{prefix}.*save it without the '{prefix}'"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi05"))


def test_a_tensor_that_is_missing_is_named_with_the_one_in_its_place(tmp_path: Path) -> None:
    weights = weights_of("pi05")
    weights["action_in_proj.base_layer.weight"] = weights.pop("action_in_proj.weight")
    source = openpi_folder(tmp_path / "source", "pi05", weights)
    with pytest.raises(ValueError, match=r"'action_in_proj\.weight' is missing"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi05"))
    weights = weights_of("pi05")
    weights["action_out_proj.base_layer.bias"] = weights.pop("action_out_proj.bias")
    source = openpi_folder(tmp_path / "other", "pi05", weights)
    with pytest.raises(ValueError, match=r"bias' is missing; 'action_out_proj\.base_layer\.bias' is not known"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi05"))
    adapted = weights_of("pi05") | {"action_in_proj.lora_A.weight": torch.ones(2, 8)}
    source = openpi_folder(tmp_path / "lora", "pi05", adapted)
    with pytest.raises(ValueError, match=r"'action_in_proj\.lora_A\.weight' is of an adapter"):
        import_checkpoint(request("openpi", source, tmp_path / "out", "pi05"))
