"""The contract of one robot: cameras, state, action, rate. Its hash is checked at connect, at job start and on read.

Two sides with different hashes never exchange an observation: `Contract.difference` lists what differs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pirl_contract.names import check_name
from pirl_contract.schema import Observation, Vector

MAX_IMAGE_SIDE = 8192
MAX_RATE_HZ = 10_000.0


@dataclass(frozen=True)
class Camera:
    """One RGB camera: name, by the rule of `names`, and size in pixels."""

    name: str
    height: int
    width: int

    def __post_init__(self) -> None:
        check_name("camera", self.name)
        for side in ("height", "width"):
            value = getattr(self, side)
            if type(value) is not int or not 1 <= value <= MAX_IMAGE_SIDE:
                raise ValueError(f"{side} {value!r} of camera '{self.name}' must be 1 to {MAX_IMAGE_SIDE} pixels")


@dataclass(frozen=True)
class Field:
    """One entry of the state or action vector: name, unit and its physical limits (None: unlimited)."""

    name: str
    unit: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        # A profile may say 1 where another says 1.0: equal robots must have equal canonical JSON.
        for limit in ("low", "high"):
            if getattr(self, limit) is not None:
                object.__setattr__(self, limit, float(getattr(self, limit)))
        if not self.name or not self.name.isprintable():
            raise ValueError(f"name {self.name[:80]!r} of a state or action entry must be printable and not empty")
        given = [limit for limit in (self.low, self.high) if limit is not None]
        if not all(map(math.isfinite, given)) or (len(given) == 2 and given[0] > given[1]):
            raise ValueError(f"limits {self.low} and {self.high} of '{self.name}' must be finite, the lower one first")


@dataclass(frozen=True)
class Contract:
    """All that both ends must agree on before an action may move an arm.

    Raises ValueError, as its parts do, for a number or a name that no robot can have.
    """

    robot: str
    cameras: tuple[Camera, ...]
    state: tuple[Field, ...]
    action: tuple[Field, ...]
    rate_hz: float
    """control rate: `ActionChunk.dt_s` is its inverse"""
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_hz", float(self.rate_hz))
        if not 0.0 < self.rate_hz <= MAX_RATE_HZ:  # false for NaN
            raise ValueError(f"rate_hz {self.rate_hz} must be above 0, at most {MAX_RATE_HZ:g}")
        for what, part in (("camera", self.cameras), ("state entry", self.state), ("action entry", self.action)):
            names = [entry.name for entry in part]
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"two of the contract's {what} names are '{twice}': each needs its own")

    @property
    def state_dim(self) -> int:
        """S."""
        return len(self.state)

    @property
    def action_dim(self) -> int:
        """D."""
        return len(self.action)

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces. The hash is taken over exactly this text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Parse `to_json`'s text. Raises ValueError that names the key at fault."""
        try:
            raw = json.loads(text)
            return cls(
                robot=str(raw["robot"]),
                cameras=tuple(Camera(**camera) for camera in raw["cameras"]),
                state=_fields(raw["state"]),
                action=_fields(raw["action"]),
                rate_hz=raw["rate_hz"],
                version=int(raw["version"]),
            )
        except KeyError as error:
            raise ValueError(f"not a contract: key {error} is missing") from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a contract: {error}") from error

    @cached_property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON; taken once."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def difference(self, other: Contract) -> list[str]:
        """Return one line per key in which `other` differs, with both values; empty when they agree."""
        mine, theirs = asdict(self), asdict(other)
        pairs = {key: _short(mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}
        return [f"{key}: {here} here, {there} there" for key, (here, there) in pairs.items()]

    def check(self, observation: Observation) -> None:
        """Raise ValueError, naming the fault, unless state and every camera are as declared here."""
        self.check_state(observation.state)
        self.check_sizes({name: (image.shape[0], image.shape[1]) for name, image in observation.images.items()})

    def check_sizes(self, images: Mapping[str, tuple[int, int]]) -> None:
        """Raise ValueError unless there is an image of (height, width) for every camera, and no other."""
        for camera in self.cameras:
            size = images.get(camera.name)
            if size is None:
                raise ValueError(f"camera '{camera.name}' is missing from the observation")
            if size != (camera.height, camera.width):
                got = f"{size[0]}x{size[1]}"
                raise ValueError(f"camera '{camera.name}' is {got}, the contract says {camera.height}x{camera.width}")
        if unknown := set(images) - {camera.name for camera in self.cameras}:
            raise ValueError(f"camera '{min(unknown)}' is not in the contract")

    def check_state(self, state: Vector) -> None:
        """Raise ValueError unless the state, [S] of S entries, has the declared length."""
        if state.shape != (self.state_dim,):
            raise ValueError(f"state has {state.size} entries, the contract {self.state_dim}")


def _fields(raw: Sequence[dict[str, Any]]) -> tuple[Field, ...]:
    def number(value: Any) -> float | None:
        return None if value is None else float(value)

    return tuple(
        Field(str(entry["name"]), str(entry["unit"]), number(entry["low"]), number(entry["high"])) for entry in raw
    )


def _short(here: Any, there: Any) -> tuple[str, str]:
    """Two values that differ, as briefly as shows it: lists by their names, or by the first entry that differs."""
    if not isinstance(here, (list, tuple)):
        return repr(here), repr(there)
    names = tuple("[" + ", ".join(str(entry["name"]) for entry in side) + "]" for side in (here, there))
    if names[0] != names[1]:
        return names[0], names[1]
    mine, theirs = next((mine, theirs) for mine, theirs in zip(here, there) if mine != theirs)
    keys = [key for key in mine if mine[key] != theirs[key]]
    return _entry(mine, keys), _entry(theirs, keys)


def _entry(entry: dict[str, Any], keys: Sequence[str]) -> str:
    return f"{entry['name']} with " + ", ".join(f"{key} {entry[key]!r}" for key in keys)
