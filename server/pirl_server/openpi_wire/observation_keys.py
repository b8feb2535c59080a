"""Maps the keys of an openpi observation to the contract's cameras, state and instruction.

openpi leaves the names to each robot: DROID says "observation/wrist_image_left", ALOHA {"images": {"cam_high": ...}},
LIBERO "observation/image". What is named after a camera of the contract is found by itself; the rest is declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Observation
from pirl_server.openpi_wire.image_fitting import letterboxed, to_rgb8
from pirl_server.serving.router import instruction_or_only

STATE, PROMPT = "state", "prompt"
MAX_STATE = 4096
_PREFIXES = ("observation/", "", "observation/images/", "images/")
_STATES = (("observation/state",), ("state",), ("observation/joint_position", "observation/gripper_position"))


@dataclass(frozen=True)
class Keys:
    """Declared names, each in place of the defaults: `Keys.parse(["wrist=observation/wrist_image_left"])`."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    """camera of the contract -> key"""
    state: tuple[str, ...] = ()
    """keys whose vectors, one after the other, are the state; empty: the usual ones are tried"""
    prompt: str = PROMPT

    @classmethod
    def parse(cls, words: Iterable[str]) -> Keys:
        """Read NAME=KEY words; NAME is a camera, `state` (KEY+KEY+...) or `prompt`. ValueError for others."""
        named: dict[str, str] = {}
        for word in words:
            name, _, key = word.partition("=")
            if not name or not key:
                raise ValueError(f"'{word}' must be NAME=KEY: a camera, 'state' or 'prompt', and its key")
            if name in named:
                raise ValueError(f"'{name}' is given twice, as '{named[name]}' and as '{key}'")
            named[name] = key
        state = tuple(named.pop(STATE).split("+")) if STATE in named else ()
        return cls(prompt=named.pop(PROMPT, PROMPT), state=state, cameras=named)

    def check(self, contract: Contract) -> None:
        """ValueError when a camera is declared that the contract does not have."""
        known = [camera.name for camera in contract.cameras]
        if unknown := set(self.cameras) - set(known):
            raise ValueError(f"camera '{min(unknown)}' is not in the contract, which has {', '.join(known) or 'none'}")

    def expected(self, contract: Contract) -> dict[str, list[str]]:
        """What is looked for, in this order, for each camera and for the state."""
        keys = {camera.name: self._of_camera(camera.name, contract) for camera in contract.cameras}
        return keys | {STATE: ["+".join(names) for names in self._of_state()], PROMPT: [self.prompt]}

    def observation(
        self, message: Any, contract: Contract, instructions: tuple[str, ...], robot_id: str
    ) -> Observation:
        """Translate one message. Raises ValueError that names the keys that were expected and those that came."""
        if not isinstance(message, dict):
            raise ValueError(f"an observation must be a map, not {type(message).__name__}")
        flat = _flat(message)
        images = {}
        for camera in contract.cameras:
            key = _first(flat, [(key,) for key in self._of_camera(camera.name, contract)], f"camera '{camera.name}'")[0]
            images[camera.name] = letterboxed(to_rgb8(flat[key], key), camera.height, camera.width)
        state_keys = _first(flat, self._of_state(), "the state")
        state = np.concatenate([_vector(flat[key], key) for key in state_keys])
        if state.shape != (contract.state_dim,):
            names = ", ".join(entry.name for entry in contract.state)
            where = "+".join(state_keys)
            raise ValueError(f"'{where}' has {state.size} entries, the contract {contract.state_dim}: {names}")
        return Observation(images, state, self._instruction(flat, instructions), robot_id)

    def _of_camera(self, name: str, contract: Contract) -> list[str]:
        if name in self.cameras:
            return [self.cameras[name]]
        names = [name, f"{name}_image", *(["image"] if len(contract.cameras) == 1 else [])]
        return [prefix + name for name in names for prefix in _PREFIXES]

    def _of_state(self) -> tuple[tuple[str, ...], ...]:
        return (self.state,) if self.state else _STATES

    def _instruction(self, flat: Mapping[str, Any], instructions: tuple[str, ...]) -> str:
        text = _text(flat[self.prompt], self.prompt) if self.prompt in flat else ""
        return instruction_or_only(text, instructions, f"'{self.prompt}'")


def _flat(message: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """{"images": {"top": x}} -> {"images/top": x}."""
    flat: dict[str, Any] = {}
    for key, value in message.items():
        if not isinstance(key, str):
            raise ValueError(f"keys must be text, not {type(key).__name__}")
        flat |= _flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _first(flat: Mapping[str, Any], choices: Iterable[tuple[str, ...]], what: str) -> tuple[str, ...]:
    choices = list(choices)
    for keys in choices:
        if all(key in flat for key in keys):
            return keys
    wanted = " or ".join("+".join(f"'{key}'" for key in keys) for keys in choices)
    came = ", ".join(f"'{key[:60]}'" for key in sorted(flat)[:20]) or "none"
    raise ValueError(f"{what} is missing: expected {wanted}; received keys: {came}")


def _text(value: Any, key: str) -> str:
    """A text as openpi's server reads it: also a numpy string, bytes, or an array or list of one."""
    try:
        if isinstance(value, np.ndarray) and value.dtype.kind in "US" and value.size == 1:
            value = value.item()
        elif isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bytes):
            value = value.decode()
    except ValueError:  # no Unicode
        value = None
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be text, or an array or list of one")
    return value


def _vector(value: Any, key: str) -> NDArray[np.float32]:
    array = np.zeros(0, object)
    if isinstance(value, (int, float, np.generic, np.ndarray, list)):
        with suppress(ValueError):  # a list of lists of several lengths
            array = np.asarray(value)
    row = array.ndim < 2 or (array.ndim == 2 and len(array) == 1)
    if array.dtype.kind not in "iuf" or not row or array.size > MAX_STATE:
        form = f"{array.dtype} {list(array.shape)}" if array.dtype != object else type(value).__name__
        raise ValueError(f"'{key}' must be a vector of numbers, got {form}")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and rejected as such
        return array.astype(np.float32).reshape(-1)
