"""lerobot's processor pipelines, read as data: supported steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from pirl_server.interchange.checkpoints.source_folder import parse, plain_file, read_object
from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.interchange.checkpoints.tensor_folder import TensorFile
from pirl_server.policy.processing_spec import PromptFormat

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
NEWLINE, STATE_PROMPT = "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step"
SMOLVLA_NEWLINE = "smolvla_new_line_processor"
NORMALIZER, UNNORMALIZER, RELATIVE = "normalizer_processor", "unnormalizer_processor", "relative_actions_processor"
ABSOLUTE, TOKENIZER, DEVICE = "absolute_actions_processor", "tokenizer_processor", "device_processor"
RENAME, BATCH = "rename_observations_processor", "to_batch_processor"
OLDER = {"delta_actions_processor": RELATIVE}
"""names of lerobot 0.5.1"""
PROMPTS: dict[str, PromptFormat] = {NEWLINE: "pi0", STATE_PROMPT: "pi05", SMOLVLA_NEWLINE: "smolvla"}
"""prompt form by the step that makes it"""
BEFORE = (RENAME, BATCH, DEVICE, *PROMPTS, NORMALIZER, RELATIVE, TOKENIZER)
AFTER = (RENAME, BATCH, DEVICE, UNNORMALIZER, ABSOLUTE)
STATE, ACTION = "observation.state", "action"
STATISTICS = ("mean", "std", "q01", "q99", "q10", "q90", "min", "max")

Mode = Literal["MEAN_STD", "QUANTILES", "QUANTILE10", "MIN_MAX", "IDENTITY"]
FeatureType = Literal["VISUAL", "STATE", "ACTION", "ENV", "REWARD", "LANGUAGE"]
Modes = Mapping[FeatureType, Mode]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


Part = TypeVar("Part", bound=_Part)


class _Step(_Part):
    registry_name: str
    config: dict[str, Any] = {}
    state_file: str | None = None


class _Pipeline(_Part):
    steps: list[_Step]


class _Feature(_Part):
    type: str


class _Normalizer(_Part):
    features: dict[str, _Feature] = {}
    """those of an observation that are normalised; empty: not written"""
    eps: float = Field(1e-8, ge=1e-8, le=1e-8)
    """the only one that the policy's arithmetic knows"""
    norm_map: dict[FeatureType, Mode]
    normalize_observation_keys: None = None


class _Tokenizer(_Part):
    max_length: PositiveInt | None = None
    padding_side: Literal["right"] = "right"


class _StatePrompt(_Part):
    include_state_in_prompt: Literal[True] = True
    max_state_dim: PositiveInt | None = None


class _Rename(_Part):
    rename_map: dict[str, str] = {}


class _NoRename(_Part):
    rename_map: dict[str, str] = Field({}, max_length=0)


class _Device(_Part):
    float_dtype: Literal["float32", "float", None] = None
    """another one would round state and images before the model sees them"""


class _Enabled(_Part):
    enabled: bool = False


class Relative(_Part):
    """Which actions are relative to the state."""

    exclude_joints: list[str] = []
    action_names: list[str] | None = None


CONFIGS: dict[str, type[BaseModel]] = {
    NORMALIZER: _Normalizer, UNNORMALIZER: _Normalizer, STATE_PROMPT: _StatePrompt, RELATIVE: _Enabled,
    ABSOLUTE: _Enabled, TOKENIZER: _Tokenizer, RENAME: _Rename, DEVICE: _Device,
}  # fmt: skip


@dataclass(frozen=True)
class Pipelines:
    """What both pipelines say together."""

    prompt: PromptFormat | None
    """of the step that makes it; None: no such step is there"""
    modes: Modes
    """normalisation by feature type; lerobot leaves a type that is not listed as it is"""
    statistics: Mapping[str, Statistics]
    """by feature, e.g. observation.state"""
    relative: Relative | None
    """None: actions are absolute"""
    renamed: Mapping[str, str]
    """feature of the robot -> feature of the model"""
    max_tokens: int | None
    prompt_state_dim: int | None
    """width that the state prompt's step pads to, in the versions that do"""
    knows_relative: bool
    """written by a version with relative actions, 0.5.1 or later"""
    state_files: tuple[str, ...]


def read_pipelines(folder: Path) -> Pipelines | None:
    """Both pipelines; None when the folder has neither (lerobot before 0.4).

    Raises ValueError for a step that is not known or can't be carried out, steps in an unknown order, or statistics of
    which there are two.
    """
    there = [(folder / name).exists() for name in (PREPROCESSOR, POSTPROCESSOR)]
    if not any(there):
        return None
    before = _steps(folder, PREPROCESSOR, BEFORE)
    after = _steps(folder, POSTPROCESSOR, AFTER)
    _check_order(PREPROCESSOR, before, _wanted(before))
    _check_order(POSTPROCESSOR, after, (UNNORMALIZER, ABSOLUTE))
    tokenizer, prompt = _read(before, TOKENIZER, _Tokenizer), _read(before, STATE_PROMPT, _StatePrompt)
    rename = _read(before, RENAME, _Rename)
    files = [step.state_file for step in (*before, *after) if step.state_file is not None]
    return Pipelines(
        prompt=_prompt(before),
        modes=_modes(before, after),
        statistics=_statistics(folder, files),
        relative=_relative(before, after),
        renamed=rename.rename_map if rename else {},
        max_tokens=tokenizer.max_length if tokenizer else None,
        prompt_state_dim=prompt.max_state_dim if prompt else None,
        knows_relative=_only(before, RELATIVE) is not None,
        state_files=tuple(files),
    )


def read_statistics(path: Path) -> dict[str, Statistics]:
    """Feature -> statistic -> values, of a file with keys like observation.state.mean."""
    file, found = TensorFile(path), dict[str, dict[str, tuple[float, ...]]]()
    for key in file.names():
        feature, _, name = key.rpartition(".")
        if name in STATISTICS and feature in (STATE, ACTION):
            file.layout(key)
            found.setdefault(feature, {})[name] = tuple(map(float, file.get(key).reshape(-1)))
    return dict(found)


def _steps(folder: Path, name: str, known: Sequence[str]) -> list[_Step]:
    path = plain_file(folder, name)
    steps = parse(_Pipeline, read_object(path), f"'{path}'").steps
    for step in steps:
        step.registry_name = OLDER.get(step.registry_name, step.registry_name)
        if step.registry_name not in known:
            raise ValueError(f"'{path}': step {step.registry_name[:100]!r} is not supported: its effect would be lost")
        if step.state_file is not None and step.registry_name not in (NORMALIZER, UNNORMALIZER):
            raise ValueError(f"'{path}': {step.registry_name} has a state file, which would be lost")
        if step.registry_name in CONFIGS:
            parse(CONFIGS[step.registry_name], step.config, f"'{path}': {step.registry_name}")
    if name == POSTPROCESSOR and (rename := _only(steps, RENAME)) is not None:
        parse(_NoRename, rename.config, f"'{path}': {RENAME}")
    return steps


def _only(steps: Sequence[_Step], name: str) -> _Step | None:
    found = [step for step in steps if step.registry_name == name]
    if len(found) > 1:
        raise ValueError(f"step '{name}' occurs {len(found)} times")
    return found[0] if found else None


def _read(steps: Sequence[_Step], name: str, model: type[Part]) -> Part | None:
    step = _only(steps, name)
    return None if step is None else parse(model, step.config, name)


def _modes(before: Sequence[_Step], after: Sequence[_Step]) -> Modes:
    """Of both normalisers, which must agree."""
    normalizer, unnormalizer = _read(before, NORMALIZER, _Normalizer), _read(after, UNNORMALIZER, _Normalizer)
    if normalizer is None or unnormalizer is None:
        missing = UNNORMALIZER if unnormalizer is None else NORMALIZER
        raise ValueError(f"step '{missing}' is missing: without it neither state nor actions have their units")
    modes, undone, features = normalizer.norm_map, unnormalizer.norm_map, normalizer.features
    if modes.get("ACTION", "IDENTITY") != undone.get("ACTION", "IDENTITY"):
        raise ValueError(f"{PREPROCESSOR} and {POSTPROCESSOR} normalise actions in two ways")
    if modes.get("VISUAL", "IDENTITY") != "IDENTITY":
        raise ValueError(f"{PREPROCESSOR}: {NORMALIZER} has VISUAL {modes['VISUAL']}: images can't be normalised here")
    if features and features.get(STATE, _Feature(type="")).type != "STATE":
        raise ValueError(f"{PREPROCESSOR}: {NORMALIZER} lists no STATE feature {STATE}: lerobot would not normalise it")
    return modes


def _statistics(folder: Path, files: Sequence[str]) -> dict[str, Statistics]:
    statistics: dict[str, Statistics] = {}
    for name in files:
        for feature, found in read_statistics(plain_file(folder, name)).items():
            if statistics.setdefault(feature, found) != found:
                raise ValueError(f"'{feature}' has other statistics in {name} than in {files[0]}")
    return statistics


def _relative(before: Sequence[_Step], after: Sequence[_Step]) -> Relative | None:
    """The step that makes actions relative, where it and the one that undoes it are switched on."""
    relative, absolute = _read(before, RELATIVE, _Enabled), _read(after, ABSOLUTE, _Enabled)
    enabled = relative is not None and relative.enabled
    if enabled != (absolute is not None and absolute.enabled):
        raise ValueError(
            f"{PREPROCESSOR} has {RELATIVE} {'on' if enabled else 'off'}, {POSTPROCESSOR} has {ABSOLUTE}"
            f" {'off' if enabled else 'on'}: actions would not come back as they went in"
        )
    return _read(before, RELATIVE, Relative) if enabled else None


def _prompt(steps: Sequence[_Step]) -> PromptFormat | None:
    found = [name for name in PROMPTS if _only(steps, name) is not None]
    if len(found) > 1:
        raise ValueError(f"{PREPROCESSOR} has both '{found[0]}' and '{found[1]}'")
    return PROMPTS[found[0]] if found else None


def _wanted(steps: Sequence[_Step]) -> tuple[str, ...]:
    """Relative before normalised before written into the prompt: another order is another policy."""
    if _only(steps, STATE_PROMPT) is not None:
        return (RENAME, RELATIVE, NORMALIZER, STATE_PROMPT, TOKENIZER)
    return (RENAME, RELATIVE, NORMALIZER)


def _check_order(pipeline: str, steps: Sequence[_Step], order: Sequence[str]) -> None:
    places = [step.registry_name for step in steps]
    for names in (order, (RENAME, NEWLINE, TOKENIZER), (RENAME, SMOLVLA_NEWLINE, TOKENIZER)):
        wanted = [name for name in names if name in places]
        if sorted(wanted, key=places.index) != wanted:
            raise ValueError(f"{pipeline}: steps must come in the order {', '.join(wanted)}")
