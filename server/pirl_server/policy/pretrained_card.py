"""Does a pretrained policy's card agree with itself? Everything that would run without an error and drive an arm wrong.

What the weights say is checked where they are loaded, the tokenizer's file where it is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pirl_server.model.pi0.byte_tokens import VOCABULARY
from pirl_server.policy.normalisation import check_statistics
from pirl_server.policy.processing_spec import Processing, TokenizerFile

if TYPE_CHECKING:
    from pirl_server.policy.model_card import ModelCard

FAMILY_OF = {"pi0": "pi0", "pi05": "pi05", "pi05_without_state": "pi05"}
"""which family reads which prompt"""
MARGIN = 64
"""tokens that a vocabulary may have beyond the model's rows: libraries add some that no prompt contains"""


def check_pretrained(card: ModelCard) -> None:
    """Raise ValueError with what contradicts what."""
    how = card.processing
    if how is None:
        raise ValueError("features 'pretrained' need the key processing")
    if card.action_scale:
        raise ValueError("features 'pretrained' take no action_scale: the action statistics scale")
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
    if any(how.delta[contract.state_dim :]):
        raise ValueError(f"a relative action beyond the {contract.state_dim} state entries has nothing to start from")


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
        raise ValueError(f"camera '{min(unseen)}' of the contract goes into no slot: the policy would not see it")
    if not used:
        raise ValueError("no slot has a camera: the policy would see nothing")


def _check_tokenizer(card: ModelCard, wanted: TokenizerFile) -> None:
    if card.tokenizer != wanted.kind:
        raise ValueError(f"tokenizer '{card.tokenizer}' and processing.tokenizer '{wanted.kind}' must be the same")
    if wanted.vocabulary > card.model.vocabulary + (0 if wanted.kind == "bytes" else MARGIN):
        raise ValueError(f"the tokenizer has {wanted.vocabulary} tokens, the model {card.model.vocabulary}: wrong one")
    if wanted.kind == "bytes":
        if wanted.vocabulary != VOCABULARY or wanted.sha256:
            raise ValueError(f"the byte tokenizer has {VOCABULARY} tokens and no file, the card says otherwise")
    elif len(wanted.sha256) != 64:
        raise ValueError(f"the SHA-256 of the tokenizer's file is 64 digits, not '{wanted.sha256}'")
