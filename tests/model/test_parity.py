"""`pirl parity` on files of many kinds: what passes, what fails, and what is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scenes import Config, described, draw_batch, draw_config, draw_model, their_names
from torch import Tensor

from pirl_server.interchange.parity.parity import main
from pirl_server.model.smolvla.config import SmolVlaConfig

FOLDER = Path(__file__).parent / "golden"


def metadata(config: Config) -> dict[str, str]:
    assert config.vision is not None
    shared = {"depth": config.depth, "num_heads": config.heads}
    shared |= {"num_kv_heads": config.kv_heads, "head_dim": config.head_dim}
    vision = config.vision
    vit = {"hidden_size": vision.width, "intermediate_size": vision.mlp_dim, "num_hidden_layers": vision.depth}
    vit |= {"num_attention_heads": vision.heads, "patch_size": vision.patch_px}
    numbers = {"state_dim": config.state_dim, "action_dim": config.action_dim, "horizon": config.horizon}
    numbers |= {"vocab": config.vocabulary, "token_len": config.max_tokens, "image_px": vision.image_px}
    if isinstance(config, SmolVlaConfig):
        numbers |= {"pixel_shuffle": config.pixel_shuffle, "self_attn_every_n_layers": config.self_attention_every}
    return {
        "family": config.family,
        "vit": json.dumps(vit),
        "vlm": json.dumps({"width": config.vlm.width, "mlp_dim": config.vlm.mlp_dim, **shared}),
        "expert": json.dumps({"width": config.expert.width, "mlp_dim": config.expert.mlp_dim, **shared}),
        **{name: str(value) for name, value in numbers.items()},
    }


def write(path: Path, seed: int, family: str, dtype: torch.dtype, part: str, batch: int, cameras: int) -> None:
    """A golden file of random sizes whose outputs come from the plain description of the stored weights."""
    config = draw_config(seed, family)
    stored = {key: value.to(dtype) for key, value in their_names(draw_model(config, seed).state_dict(), config).items()}
    weights = {key: value.double() for key, value in stored.items()}
    inputs = torch.float64 if dtype == torch.float64 else torch.float32
    scene = draw_batch(config, seed, batch, cameras).rounded(inputs)
    actions = scene.x.flip(0) / 2
    t = scene.t[:, None, None]
    v = described(weights, config, replace(scene, x=t * scene.x + (1 - t) * actions))
    x = scene.x
    for k in range(2):
        x = x - described(weights, config, replace(scene, x=x, t=torch.full_like(scene.t, 1 - k / 2))) / 2
    tensors = {f"weights/{part}{key}": value for key, value in stored.items()}
    tensors |= {f"in/image_{i}": scene.images[:, i].contiguous() for i in range(cameras)}
    tensors |= {"in/image_mask": scene.image_mask, "in/tokens": scene.tokens, "in/token_mask": scene.token_mask}
    tensors |= {"in/noise": scene.x, "in/actions": actions, "in/time": scene.t}
    tensors |= {"out/loss": (v - (scene.x - actions)) ** 2, "out/sample_2": x}
    if config.state_token:
        tensors["in/state"] = scene.state
    tensors = {
        key: value.to(inputs) if value.dtype == torch.float64 and "weights" not in key else value
        for key, value in tensors.items()
    }
    save_file(tensors, path, metadata(config))


CASES: list[tuple[int, str, torch.dtype, str, int, int]] = [
    (10, "pi0", torch.float32, "", 1, 1),
    (11, "pi05", torch.float32, "model.", 3, 4),
    (12, "pi0", torch.float64, "model.", 2, 2),
    (13, "pi05", torch.float64, "", 2, 3),
    (14, "pi0", torch.bfloat16, "", 3, 3),
    (15, "pi05", torch.bfloat16, "model.", 1, 2),
    (16, "smolvla", torch.float32, "", 3, 3),
    (17, "smolvla", torch.float64, "model.", 2, 1),
    (18, "smolvla", torch.bfloat16, "model.", 3, 4),
    (19, "smolvla", torch.float32, "model.", 2, 2),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-{case[2]}-{case[5]}cameras")
def test_files_of_other_sizes_pass(case: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random head counts and widths, first camera absent, ragged prompts, names with and without "model."."""
    write(tmp_path / "case.safetensors", *case)
    assert main([str(tmp_path / "case.safetensors")]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.count("ok") == 2


def test_the_goldens_pass_and_one_changed_number_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FOLDER / f"{family}_tiny.safetensors") for family in ("pi0", "pi05", "smolvla")]
    assert main(files) == 0
    assert capsys.readouterr().out.count("ok") == 12
    assert main([files[0], spoiled(tmp_path, lambda tensors, _: tensors["out/sample_4"].view(-1)[3].add_(1e-4))]) == 1
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if "FAILED" in line] == ["sample_4"]


def spoiled(folder: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> str:
    """A copy of the pi0.5 golden, changed."""
    tensors = load_file(FOLDER / "pi05_tiny.safetensors")
    with safe_open(FOLDER / "pi05_tiny.safetensors", "pt") as file:
        details = dict(file.metadata())
    change(tensors, details)
    save_file(tensors, folder / "spoiled.safetensors", details)
    return str(folder / "spoiled.safetensors")


def test_a_weight_that_is_not_a_number_fails(tmp_path: Path) -> None:
    assert main([spoiled(tmp_path, lambda tensors, _: tensors["weights/action_in_proj.bias"].fill_(torch.nan))]) == 1


def test_pi05_without_a_state_and_only_a_language_head(tmp_path: Path) -> None:
    """openpi's own files keep the token embedding under the head's name alone."""

    def change(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        del tensors["in/state"]
        del tensors["weights/paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"]

    assert main([spoiled(tmp_path, change)]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, _: tensors.pop("weights/time_mlp_in.bias"), "time_mlp_in.bias"),
        (lambda tensors, _: tensors.update({"weights/odd": torch.ones(1)}), "odd"),
        (lambda tensors, _: tensors.pop("in/tokens"), "in/tokens"),
        (lambda tensors, _: tensors.pop("in/image_1"), "without a gap"),
        (lambda tensors, _: tensors.update({"in/noise": torch.zeros(3, 5, 7)}), "'noise' has shape (3, 5, 7)"),
        (lambda tensors, _: tensors["in/tokens"].fill_(512), "vocabulary has 512"),
        (lambda _, details: details.pop("vlm"), "metadata lack 'vlm'"),
        (lambda _, details: details.update(family="pi0"), "weights do not fit"),
        (lambda _, details: details.update(family="pi7"), "'pi7' is not known"),
        (lambda _, details: details.update(vlm="{"), "Expecting"),
        (lambda _, details: details.update(horizon="6"), "the sizes require (3, 6, 8)"),
        (lambda tensors, _: [tensors.pop(key) for key in list(tensors) if "out/" in key], "records no output"),
    ],
)
def test_bad_files_are_refused_in_words(
    change: Callable[[dict[str, Tensor], dict[str, str]], object],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([spoiled(tmp_path, change)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_what_is_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    assert main([str(tmp_path / "text.safetensors"), str(tmp_path / "none.safetensors")]) == 2
    assert capsys.readouterr().err.count("can't be read") == 2
