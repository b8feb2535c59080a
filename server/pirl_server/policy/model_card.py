"""The model card: settings not recoverable from weights; a wrong one fails silently."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pirl_contract import Contract
from pirl_server.model.byte_tokens import VOCABULARY
from pirl_server.model.families import FAMILIES, read_config
from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.policy.features import FEATURES, STATE_DIM
from pirl_server.policy.normalisation import check_statistics
from pirl_server.policy.processing_spec import PRETRAINED, Processing, TokenizerFile

MOST_DENOISE_STEPS = 1000
DEFAULT_FAMILY = "pi0"
"""of a card that names none"""


@dataclass(frozen=True)
class ModelCard:
    """Sizes, robot, input and output conventions, and where it came from."""

    name: str
    contract: Contract
    model: FlowModelConfig
    features: str
    """key of `policy.features.FEATURES`, or "pretrained": then `processing` says what is done"""
    action_scale: tuple[float, ...]
    """[D] model-space action 1.0 in the units of the contract; empty when pretrained"""
    execute_horizon: int
    denoise_steps: int
    """K"""
    noise_level: float
    """a of the exploration schedule"""
    instructions: tuple[str, ...]
    task: str
    family: str = DEFAULT_FAMILY
    tokenizer: str = "bytes"
    lineage: Mapping[str, str] = field(default_factory=dict)
    """how it was made: parent version, job, command"""
    processing: Processing | None = None
    """a pretrained policy's images, prompt, normalisation and tokenizer"""
    prefix_delay: int = 0
    """longest run of given first actions that it was trained to continue (arXiv 2512.05964); 0: it was not"""
    guidance: float | None = None
    """of a policy that was trained on better and worse actions (`policy.condition`); 1: as conditioned. None: it was
    not"""

    def to_json(self) -> str:
        """Return canonical JSON. What older readers do not know is left out where it says nothing."""
        values = asdict(self)
        for name in ("prefix_delay", "guidance"):
            if not values[name]:
                del values[name]
        if self.processing is not None and not self.processing.prompt_state_dim:
            del values["processing"]["prompt_state_dim"]
        return json.dumps(values, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse `to_json`'s text. Raises ValueError that names what is missing, unknown or wrong."""
        try:
            raw: dict[str, Any] = json.loads(text)
            unknown = set(raw) - {entry.name for entry in fields(cls)}
            if unknown:
                raise ValueError(f"unknown key '{min(unknown)}'")
            raw["contract"] = Contract.from_json(json.dumps(raw["contract"]))
            raw["model"] = read_config(raw.get("family", DEFAULT_FAMILY), raw["model"])
            raw["processing"] = Processing.from_dict(raw["processing"]) if raw.get("processing") else None
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
            }
            card = cls(**values)
            _check(card)
        except KeyError as error:
            raise ValueError(f"not a model card: key {error} is missing") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a model card: {error}") from error
        return card


def _check(card: ModelCard) -> None:
    """Raise ValueError for what would fail at the first chunk, or worse, would not."""
    if card.family not in FAMILIES:
        raise ValueError(f"family '{card.family}' is not supported")
    if card.family != card.model.family:
        raise ValueError(f"family '{card.family}' with a model of family '{card.model.family}'")
    if card.features == PRETRAINED:
        check_pretrained(card)
    else:
        _check_tabletop(card)
    if not 0 < card.noise_level < math.inf:
        raise ValueError(f"noise level {card.noise_level} must be positive")
    if not 1 <= card.execute_horizon <= card.model.horizon:
        raise ValueError(f"execute_horizon {card.execute_horizon} must be 1 to the horizon, {card.model.horizon}")
    if not 0 <= card.prefix_delay < card.model.horizon:
        raise ValueError(f"prefix_delay {card.prefix_delay} must be 0 to {card.model.horizon - 1}, below the horizon")
    if type(card.denoise_steps) is not int or not 1 <= card.denoise_steps <= MOST_DENOISE_STEPS:
        raise ValueError(f"denoise_steps {card.denoise_steps} must be 1 to {MOST_DENOISE_STEPS}")
    if card.guidance is not None and not 0 < card.guidance < math.inf:
        raise ValueError(f"guidance {card.guidance} must be positive: 1 is plain conditioning, null none")


def _check_tabletop(card: ModelCard) -> None:
    if card.processing is not None:
        raise ValueError(f"features '{card.features}' must not have processing, only '{PRETRAINED}' do")
    if not card.model.state_token:
        raise ValueError(
            f"family '{card.family}' has no state token for features '{card.features}': with features '{PRETRAINED}'"
            " and prompt 'pi05' it reads the state as text"
        )
    if card.tokenizer != "bytes":
        raise ValueError(f"tokenizer '{card.tokenizer}' is not known for features '{card.features}': it is bytes")
    if card.features not in FEATURES:
        raise ValueError(f"features '{card.features}' are not known; there are: {', '.join(FEATURES)}")
    if card.model.state_dim != STATE_DIM:
        raise ValueError(f"the model expects {card.model.state_dim} features, '{card.features}' computes {STATE_DIM}")
    if not len(card.action_scale) == card.model.action_dim == card.contract.action_dim:
        raise ValueError(
            f"{len(card.action_scale)} action scales, {card.model.action_dim} model outputs and "
            f"{card.contract.action_dim} actions in the contract must be the same number"
        )
    if not all(0 < scale < math.inf for scale in card.action_scale):
        raise ValueError(f"action scales {card.action_scale} must be positive")
    if not card.instructions:
        raise ValueError("at least one instruction is needed")


# Does a pretrained policy's card agree with itself? Everything that would run without an error and drive an arm wrong.
# What the weights say is checked where they are loaded, the tokenizer's file where it is opened.

FAMILY_OF = {"pi0": "pi0", "pi05": "pi05", "pi05_without_state": "pi05", "smolvla": "smolvla"}
"""which family reads which prompt"""
MOST_STATE_ENTRIES = 256
"""in a prompt: more would not fit into any"""
MARGIN = 64
"""tokens that a vocabulary may have beyond the model's rows: libraries add some that no prompt contains"""


def check_pretrained(card: ModelCard) -> None:
    """Raise ValueError with what contradicts what."""
    how = card.processing
    if how is None:
        raise ValueError("features 'pretrained' need the key processing")
    if card.action_scale:
        raise ValueError("features 'pretrained' must not have action_scale: the action statistics define the scale")
    if (family := FAMILY_OF[how.prompt]) != card.model.family:
        raise ValueError(f"prompt form '{how.prompt}' belongs to {family}, the model is {card.model.family}")
    _check_sizes(card, how)
    _check_slots(card, how)
    _check_tokenizer(card, how.tokenizer)
    check_statistics(how.state, [entry.name for entry in card.contract.state], "state")
    check_statistics(how.action, [entry.name for entry in card.contract.action], "action")


def _check_sizes(card: ModelCard, how: Processing) -> None:
    contract, model = card.contract, card.model
    sizes = {
        "action": (contract.action_dim, model.action_dim),
        "state": (contract.state_dim, model.state_dim),
    }
    for kind, (real, room) in sizes.items():
        if not 1 <= real <= room:
            raise ValueError(f"the contract has {real} {kind} entries, the model has room for 1 to {room}")
    if how.delta and len(how.delta) != contract.action_dim:
        raise ValueError(f"the delta mask has {len(how.delta)} entries, the contract {contract.action_dim} actions")
    if how.prompt_state_dim:
        _check_prompt_state(how.prompt, how.prompt_state_dim, contract.state_dim)
    if any(how.delta[contract.state_dim :]):
        raise ValueError(f"a relative action beyond the {contract.state_dim} state entries has no reference")


def _check_prompt_state(prompt: str, entries: int, state_dim: int) -> None:
    if prompt != "pi05" or not state_dim < entries <= MOST_STATE_ENTRIES:
        raise ValueError(
            f"prompt_state_dim {entries} must be 0, or for a pi05 prompt {state_dim + 1} to {MOST_STATE_ENTRIES}: more"
            f" than the contract's {state_dim} state entries; the prompt is '{prompt}'"
        )


def _check_slots(card: ModelCard, how: Processing) -> None:
    keys = [slot.key for slot in how.slots]
    used = [slot.camera for slot in how.slots if slot.camera is not None]
    if card.model.vision is None:
        if keys:
            raise ValueError(f"slot '{keys[0]}' is for images, and the model has no vision")
        return
    known = {camera.name for camera in card.contract.cameras}
    for names, what in ((keys, "key"), (used, "camera")):
        if len(set(names)) < len(names):
            raise ValueError(f"two slots have the same {what}: {', '.join(names)}")
    if unknown := set(used) - known:
        raise ValueError(f"camera '{min(unknown)}' of a slot is not in the contract")
    if unseen := known - set(used):
        raise ValueError(f"camera '{min(unseen)}' of the contract has no slot: the policy would ignore it")
    if not used:
        raise ValueError("no slot has a camera: the policy would get no image")


def _check_tokenizer(card: ModelCard, wanted: TokenizerFile) -> None:
    if card.tokenizer != wanted.kind:
        raise ValueError(f"tokenizer '{card.tokenizer}' and processing.tokenizer '{wanted.kind}' must be the same")
    if wanted.vocabulary > card.model.vocabulary + (0 if wanted.kind == "bytes" else MARGIN):
        raise ValueError(f"the tokenizer has {wanted.vocabulary} tokens, the model {card.model.vocabulary}: wrong one")
    if wanted.kind == "bytes":
        if wanted.vocabulary != VOCABULARY or wanted.sha256:
            raise ValueError(f"the byte tokenizer has {VOCABULARY} tokens and no file, the card differs")
    elif len(wanted.sha256) != 64:
        raise ValueError(f"the SHA-256 of the tokenizer's file is 64 digits, not '{wanted.sha256}'")
