"""A pretrained policy's card: intact it is read back as written, and each contradiction in it is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from small_pretrained import CONTRACT, small_card
from toy_arm import toy_card

from pirl_contract import Camera
from pirl_server.policy.model_card import MARGIN, ModelCard

Raw = dict[str, Any]


@pytest.mark.parametrize("prompt", ["pi0", "pi05", "pi05_without_state"])
def test_an_intact_card_is_read_back_as_written(prompt: Any) -> None:
    card = small_card(prompt)
    assert ModelCard.from_json(card.to_json()) == card


def test_a_policy_that_sees_nothing_needs_no_slot() -> None:
    card = small_card("pi05", {"slots": ()})
    card = replace(card, model=replace(card.model, vision=None))
    assert ModelCard.from_json(card.to_json()) == card


def test_libraries_may_add_tokens_that_no_prompt_contains() -> None:
    """A tokenizer.json of PaliGemma has one more than the embedding has rows."""
    raw = json.loads(small_card().to_json())
    raw["tokenizer"] = "sentencepiece"
    raw["processing"]["tokenizer"] = {"kind": "sentencepiece", "vocabulary": 260 + MARGIN, "sha256": "0" * 64}
    assert ModelCard.from_json(json.dumps(raw)).processing is not None


def put(*path: str | int, to: object) -> Callable[[Raw], object]:
    """A fault: the value at a path of keys is another one."""

    def edit(raw: Raw) -> None:
        place: Any = raw
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return edit


STATS = ("processing", "state")
SLOTS = ("processing", "slots")
FILE = {"kind": "sentencepiece", "vocabulary": 260, "sha256": "0" * 64}
FAULTS: dict[str, tuple[Callable[[Raw], object], str]] = {
    "not have processing": (put("processing", to=None), "need the key processing"),
    "unknown key in it": (put("processing", "crop", to=1), "processing.crop"),
    "unknown prompt": (put("processing", "prompt", to="pi1"), "processing.prompt"),
    "padding in another prompt": (put("processing", "prompt_state_dim", to=32), "prompt_state_dim 32 must be 0"),
    "scales as well": (put("action_scale", to=[1.0]), "must not have action_scale"),
    "family of another model": (put("model", "family", to="pi05"), "family 'pi0' with a model of family 'pi05'"),
    "family of another card": (put("family", to="pi05"), "family 'pi05' with a model of family 'pi0'"),
    "unknown family": (put("family", to="pi2"), "family 'pi2' is not supported"),
    "pi0.5's prompt for pi0": (put("processing", "prompt", to="pi05"), "prompt form 'pi05' belongs to pi05"),
    "state as zero in pi0": (
        put("processing", "prompt", to="pi05_without_state"), "prompt form 'pi05_without_state' belongs to pi05"
    ),
    "more actions than outputs": (put("model", "action_dim", to=2), "3 action entries, the model has room for 1 to 2"),
    "more joints than inputs": (put("model", "state_dim", to=3), "4 state entries, the model has room for 1 to 3"),
    "a camera that is not there": (put(*SLOTS, 1, "camera", to="left"), "camera 'left' of a slot is not in the"),
    "a camera that goes nowhere": (put(*SLOTS, 0, "camera", to=None), "camera 'front' of the contract has no"),
    "a camera twice": (put(*SLOTS, 1, "camera", to="front"), "two slots have the same camera"),
    "a slot twice": (put(*SLOTS, 1, "key", to="right"), "two slots have the same key"),
    "slots without vision": (put("model", "vision", to=None), "slot 'base_0_rgb' is for images"),
    "short delta mask": (put("processing", "delta", to=[True]), "delta mask has 1 entries, the contract 3"),
    "short statistics": (put(*STATS, "first", to=[0.0]), "1 and 4 state statistics for the contract's 4"),
    "std 0": (put(*STATS, "second", 1, to=0.0), "state 'j2': std is 0"),
    "quantiles meet": (put("processing", "action", "second", 2, to=0.0), "action 'grip': q99 - q01 is 0"),
    "statistics not finite": (put(*STATS, "first", 3, to=float("inf")), "state 'grip' has statistics inf"),
    "two tokenizers": (put("tokenizer", to="tokenizer_json"), "must be the same"),
    "too few embeddings": (put("model", "vocabulary", to=200), "tokenizer has 260 tokens, the model 200"),
    "bytes of another size": (put("processing", "tokenizer", "vocabulary", to=256), "byte tokenizer has 260"),
    "bytes from a file": (put("processing", "tokenizer", "sha256", to="0" * 64), "byte tokenizer has 260"),
    "unknown tokenizer": (put("processing", "tokenizer", "kind", to="bpe"), "processing.tokenizer.kind"),
    "file without hash": (
        lambda raw: raw.update(tokenizer="sentencepiece") or raw["processing"].update(tokenizer=FILE | {"sha256": "0"}),
        "64 digits",
    ),
    "file too large": (
        lambda raw: (
            raw.update(tokenizer="sentencepiece")
            or raw["processing"].update(tokenizer=FILE | {"vocabulary": 261 + MARGIN})
        ),
        "the tokenizer has 325 tokens, the model 260",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_contradiction_is_one_clear_value_error(fault: str) -> None:
    raw = json.loads(small_card().to_json())
    damage, words = FAULTS[fault]
    damage(raw)
    with pytest.raises(ValueError, match=words) as caught:
        ModelCard.from_json(json.dumps(raw))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_relative_action_needs_a_state_to_start_from() -> None:
    card = small_card(contract=replace(CONTRACT, state=CONTRACT.state[:1], action=CONTRACT.action))
    raw = json.loads(card.to_json())
    for name in ("first", "second"):
        raw["processing"]["state"][name] = raw["processing"]["state"][name][:1]
    with pytest.raises(ValueError, match="beyond the 1 state entries has no reference"):
        ModelCard.from_json(json.dumps(raw))


def test_all_slots_empty_is_a_policy_that_sees_nothing() -> None:
    raw = json.loads(small_card(contract=replace(CONTRACT, cameras=())).to_json())
    for slot in raw["processing"]["slots"]:
        slot["camera"] = None
    with pytest.raises(ValueError, match="would get no image"):
        ModelCard.from_json(json.dumps(raw))


def test_a_contract_s_camera_without_a_slot_is_not_seen() -> None:
    more = replace(CONTRACT, cameras=(*CONTRACT.cameras, Camera("top", 8, 8)))
    with pytest.raises(ValueError, match="camera 'top' of the contract has no slot"):
        ModelCard.from_json(small_card(contract=more).to_json())


def test_features_of_the_table_need_the_state_token_of_pi0() -> None:
    card = toy_card(family="pi05", model=replace(toy_card().model, family="pi05"))
    with pytest.raises(ValueError, match="no state token for features 'proprioception': with features 'pretrained'"):
        ModelCard.from_json(card.to_json())
    with pytest.raises(ValueError, match="must not have processing"):
        ModelCard.from_json(toy_card(processing=small_card().processing).to_json())
