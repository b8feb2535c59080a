"""A checkpoint is its bytes: what is loaded is what was saved, and anything else is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toy_arm import save_toy, toy_card, toy_observation, toy_policy

from pirl_server.policy import checkpoint
from pirl_server.policy.checkpoint import (
    CARD,
    CRITIC,
    SOURCE,
    TOKENIZERS,
    WEIGHTS,
    checkpoint_version,
    load_checkpoint,
    save_checkpoint,
)
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    policy, critic = toy_policy(), {"w": torch.randn(3)}
    version = save_checkpoint(tmp_path / "new" / "one", policy.card, policy.model.state_dict(), critic)
    card, weights, found = load_checkpoint(tmp_path / "new" / "one")
    assert card == policy.card
    assert weights.keys() == policy.model.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in policy.model.state_dict().items())
    assert found is not None
    assert torch.equal(found["w"], critic["w"])
    loaded = FlowPolicy.load(tmp_path / "new" / "one")
    assert loaded.version == version == checkpoint_version(tmp_path / "new" / "one")
    drawn = [each.sample(toy_observation(), explore=True, seed=5).actions for each in (policy, loaded)]
    np.testing.assert_array_equal(*drawn)


def test_saving_over_a_checkpoint_leaves_nothing_of_it(tmp_path: Path) -> None:
    """A critic of the checkpoint that lay there before would be hashed, loaded and trained on."""
    save_toy(tmp_path / "fresh")
    save_toy(tmp_path / "used", seed=1, critic=True)
    for name in (*TOKENIZERS, SOURCE):
        (tmp_path / "used" / name).write_bytes(b"of the other")
    save_toy(tmp_path / "used")
    for name in (CRITIC, *TOKENIZERS, SOURCE):
        assert not (tmp_path / "used" / name).exists()
    assert checkpoint_version(tmp_path / "used") == checkpoint_version(tmp_path / "fresh")


@pytest.mark.parametrize("name", [CARD, WEIGHTS, CRITIC])
@pytest.mark.parametrize("place", [0, 1234, -1])
def test_any_changed_byte_is_another_version(tmp_path: Path, name: str, place: int) -> None:
    save_toy(tmp_path, critic=True)
    before = checkpoint_version(tmp_path)
    assert checkpoint_version(tmp_path) == before
    data = bytearray((tmp_path / name).read_bytes())
    data[place] ^= 1
    (tmp_path / name).write_bytes(bytes(data))
    assert checkpoint_version(tmp_path) != before


def test_lineage_of_the_registry_beside_it_is_no_part_of_the_version(tmp_path: Path) -> None:
    before = checkpoint_version(save_toy(tmp_path))
    (tmp_path / "lineage.json").write_text("{}")
    assert checkpoint_version(tmp_path) == before


SHIPPED = Path(__file__).parents[2] / "server" / "pirl_server" / "checkpoints" / "pushcube-base"


def test_the_shipped_checkpoint_keeps_its_version() -> None:
    """Registries and logged episodes know it by this name."""
    assert checkpoint_version(SHIPPED) == "b36e3d50d1a0"


def test_what_is_loaded_survives_a_save_over_its_file(tmp_path: Path) -> None:
    """Weights are mapped from the file: a checkpoint saved in its place must not change them under a policy."""
    _, weights, _ = load_checkpoint(save_toy(tmp_path))
    before = {name: tensor.clone() for name, tensor in weights.items()}
    save_toy(tmp_path, seed=1)
    assert all(torch.equal(weights[name], before[name]) for name in weights)
    assert any(not torch.equal(load_checkpoint(tmp_path)[1][name], before[name]) for name in before)


def test_a_value_that_is_not_finite_is_found_in_any_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_ELEMENTS", 7)
    for size in (1, 7, 20):
        tensor = torch.ones(size)
        checkpoint.check_finite("w", tensor)
        for place in range(size):
            wrong = tensor.clone()
            wrong[place] = torch.nan
            with pytest.raises(ValueError, match="'w' holds values"):
                checkpoint.check_finite("w", wrong)


def truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def corrupt_header(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[7] = 0x7F
    (folder / WEIGHTS).write_bytes(bytes(data))


def edit_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return edit


def edit_card(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        raw = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(raw | changes))

    return edit


def edit_part(part: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        raw = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(raw | {part: raw[part] | changes}))

    return edit


edit_model, edit_contract = partial(edit_part, "model"), partial(edit_part, "contract")

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda folder: (folder / CARD).unlink(), "no card.json"),
    "card is not JSON": (lambda folder: (folder / CARD).write_text("{"), "not a model card"),
    "card is not text": (lambda folder: (folder / CARD).write_bytes(b"\xff\xfe{}"), "not a model card"),
    "card is a list": (lambda folder: (folder / CARD).write_text("[]"), "not a model card"),
    "card is empty": (lambda folder: (folder / CARD).write_text("{}"), "'contract' is missing"),
    "unknown key": (edit_card(temperature=1.0), "unknown key 'temperature'"),
    "unknown features": (edit_card(features="all"), "features 'all' are not known"),
    "features of a wrong type": (edit_card(features={}), "not a model card"),
    "unknown family": (edit_card(family="rt1"), "family 'rt1'"),
    "unknown tokenizer": (edit_card(tokenizer="bpe"), "tokenizer 'bpe'"),
    "model without sizes": (edit_card(model={}), "'vision' is missing"),
    "too few scales": (edit_card(action_scale=[1.0]), "1 action scales"),
    "scale 0": (edit_card(action_scale=[1.0, 0.0]), "must be positive"),
    "plays more than it has": (edit_card(execute_horizon=9), "execute_horizon 9"),
    "no denoise step": (edit_card(denoise_steps=0), "denoise_steps 0 must be 1 to 1000"),
    "a billion denoise steps": (edit_card(denoise_steps=10**9), "denoise_steps 1000000000 must be 1 to 1000"),
    "half a denoise step": (edit_card(denoise_steps=1.5), r"denoise_steps 1\.5 must be 1 to 1000"),
    "depth": (edit_model(depth=20_000), "depth 20000 of the model must be a whole number, 1 to 256"),
    "depth of a fraction": (edit_model(depth=2.0), r"depth 2\.0 of the model must be a whole number"),
    "no head": (edit_model(kv_heads=0), "kv_heads 0 of the model must be a whole number, 1 to 1024"),
    "horizon": (edit_model(horizon=10**9), "horizon 1000000000 of the model must be a whole number, 1 to 4096"),
    "width": (edit_model(vlm={"width": 10**12, "mlp_dim": 8}), "width 1000000000000 of the model"),
    "rate": (edit_contract(rate_hz=0), "rate_hz 0.0 must be above 0"),
    "camera of a path": (
        edit_contract(cameras=[{"name": "../../../x", "height": 8, "width": 8}]),
        "must be 1 to 64 letters",
    ),
    "noise level nan": (edit_card(noise_level=float("nan")), "must be positive"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    "empty weights": (lambda folder: (folder / WEIGHTS).write_bytes(b""), WEIGHTS),
    "truncated weights": (truncate, WEIGHTS),
    "corrupt header": (corrupt_header, WEIGHTS),
    "renamed tensor": (edit_weights(lambda w: w.update(other=w.pop("state_proj.bias"))), "state_proj.bias"),
    "missing tensor": (edit_weights(lambda w: w.pop("state_proj.bias")), "state_proj.bias"),
    "tensor too much": (edit_weights(lambda w: w.update(more=torch.ones(1))), "more"),
    "wrong shape": (edit_weights(lambda w: w.update({"state_proj.bias": torch.ones(7)})), "state_proj.bias"),
    "whole numbers": (edit_weights(lambda w: w.update({"state_proj.bias": torch.ones(16).long()})), "int64"),
    "nan": (edit_weights(lambda w: w["state_proj.bias"].fill_(torch.nan)), "'state_proj.bias' holds values"),
    "infinity": (edit_weights(lambda w: w["state_proj.bias"][0:1].fill_(torch.inf)), "not finite"),
    "critic damaged": (lambda folder: (folder / CRITIC).write_bytes(b"x"), CRITIC),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_one_clear_value_error(tmp_path: Path, fault: str) -> None:
    save_toy(tmp_path, critic=True)
    FlowPolicy.load(tmp_path)  # negative control: the intact one loads
    damage, words = FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        FlowPolicy.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy(tmp_path_factory.mktemp("intact"))


@given(st.integers(0, 600), st.binary(min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_to_the_header_is_a_value_error_or_harmless(intact: Path, place: int, junk: bytes) -> None:
    folder = intact.parent / "damaged"
    folder.mkdir(exist_ok=True)
    data = bytearray((intact / WEIGHTS).read_bytes())
    data[place : place + len(junk)] = junk
    (folder / WEIGHTS).write_bytes(bytes(data))
    (folder / CARD).write_bytes((intact / CARD).read_bytes())
    with contextlib.suppress(ValueError):
        FlowPolicy.load(folder)


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
NESTED = JSON | st.lists(JSON, max_size=3) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)


@given(st.sampled_from(sorted(json.loads(toy_card().to_json()))), NESTED)
def test_any_value_under_a_card_key_is_a_card_or_a_value_error(key: str, value: object) -> None:
    text = json.dumps(json.loads(toy_card().to_json()) | {key: value})
    with contextlib.suppress(ValueError):
        assert ModelCard.from_json(text).model == toy_card().model or key == "model"
