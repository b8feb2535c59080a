"""lerobot's processor pipelines, read as data: supported steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pirl_server.interchange.checkpoints.source_folder import parse, plain_file, read_object
from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.interchange.checkpoints.tensor_folder import TensorFile
from pirl_server.policy.processing_spec import PromptFormat

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
NEWLINE, STATE_PROMPT = "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step"
NORMALIZER, UNNORMALIZER, RELATIVE = "normalizer_processor", "unnormalizer_processor", "relative_actions_processor"
ABSOLUTE, TOKENIZER, DEVICE = "absolute_actions_processor", "tokenizer_processor", "device_processor"
HARMLESS = ("rename_observations_processor", "to_batch_processor", DEVICE)
"""names, batches and devices are the caller's affair here"""
BEFORE = (*HARMLESS, NEWLINE, STATE_PROMPT, NORMALIZER, RELATIVE, TOKENIZER)
AFTER = (*HARMLESS, UNNORMALIZER, ABSOLUTE)


class _Step(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    registry_name: str
    config: dict[str, Any] = {}
    state_file: str | None = None


class _Pipeline(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    steps: list[_Step]


class _Normalizer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    eps: float = Field(1e-8, ge=1e-8, le=1e-8)
    """the only one that the policy's arithmetic knows"""
    norm_map: dict[str, Literal["MEAN_STD", "QUANTILES", "MIN_MAX", "IDENTITY"]]
    normalize_observation_keys: None = None


class _Tokenizer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    padding_side: Literal["right"] = "right"


class _StatePrompt(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    include_state_in_prompt: Literal[True] = True


class Relative(BaseModel):
    """Which actions are relative to the state."""

    model_config = ConfigDict(strict=True, extra="ignore")
    enabled: bool = False
    exclude_joints: list[str] = []
    action_names: list[str] | None = None


CONFIGS: dict[str, type[BaseModel]] = {
    NORMALIZER: _Normalizer, UNNORMALIZER: _Normalizer, STATE_PROMPT: _StatePrompt, RELATIVE: Relative,
    TOKENIZER: _Tokenizer,
}  # fmt: skip


@dataclass(frozen=True)
class Pipelines:
    """What both pipelines say together."""

    prompt: PromptFormat | None
    """pi05 with the state in the prompt, else pi0's form; None: neither step is there"""
    modes: Mapping[str, str]
    """normalisation by feature type"""
    statistics: Mapping[str, Statistics]
    """by feature, e.g. observation.state"""
    relative: Relative | None
    """None: actions are absolute"""
    state_files: tuple[str, ...]


def read_pipelines(folder: Path) -> Pipelines | None:
    """Both pipelines; None when the folder has neither (lerobot before 0.4).

    Raises ValueError for a step that is not known, steps in an unknown order, or statistics of which there are two.
    """
    there = [(folder / name).exists() for name in (PREPROCESSOR, POSTPROCESSOR)]
    if not any(there):
        return None
    before = _steps(folder, PREPROCESSOR, BEFORE)
    after = _steps(folder, POSTPROCESSOR, AFTER)
    _check_order(before)
    normalizer, unnormalizer = _only(before, NORMALIZER), _only(after, UNNORMALIZER)
    modes = _mode(normalizer)
    if modes.get("ACTION") != _mode(unnormalizer).get("ACTION"):
        raise ValueError(f"{PREPROCESSOR} and {POSTPROCESSOR} normalise actions in two ways")
    files = [step.state_file for step in (normalizer, unnormalizer) if step is not None and step.state_file is not None]
    statistics: dict[str, Statistics] = {}
    for name in files:
        for feature, found in read_statistics(plain_file(folder, name)).items():
            if statistics.setdefault(feature, found) != found:
                raise ValueError(f"'{feature}' has other statistics in {name} than in {files[0]}")
    relative = _only(before, RELATIVE)
    parsed = None if relative is None else parse(Relative, relative.config, PREPROCESSOR)
    return Pipelines(_prompt(before), modes, statistics, parsed if parsed and parsed.enabled else None, tuple(files))


def read_statistics(path: Path) -> dict[str, Statistics]:
    """Feature -> statistic -> values, of a file with keys like observation.state.mean."""
    file, found = TensorFile(path), dict[str, dict[str, tuple[float, ...]]]()
    for key in file.names():
        feature, _, name = key.rpartition(".")
        if name in ("mean", "std", "q01", "q99", "min", "max") and feature in ("observation.state", "action"):
            file.layout(key)
            found.setdefault(feature, {})[name] = tuple(map(float, file.get(key).reshape(-1)))
    return dict(found)


def _steps(folder: Path, name: str, known: Sequence[str]) -> list[_Step]:
    path = plain_file(folder, name)
    steps = parse(_Pipeline, read_object(path), f"'{path}'").steps
    for step in steps:
        if step.registry_name not in known:
            raise ValueError(f"'{path}': step {step.registry_name[:100]!r} is not supported: its effect would be lost")
        if step.registry_name in CONFIGS:
            parse(CONFIGS[step.registry_name], step.config, f"'{path}': {step.registry_name}")
    return steps


def _only(steps: Sequence[_Step], name: str) -> _Step | None:
    found = [step for step in steps if step.registry_name == name]
    if len(found) > 1:
        raise ValueError(f"step '{name}' occurs {len(found)} times")
    return found[0] if found else None


def _mode(step: _Step | None) -> Mapping[str, str]:
    return {} if step is None else parse(_Normalizer, step.config, step.registry_name).norm_map


def _prompt(steps: Sequence[_Step]) -> PromptFormat | None:
    state, newline = _only(steps, STATE_PROMPT), _only(steps, NEWLINE)
    if state is not None and newline is not None:
        raise ValueError(f"{PREPROCESSOR} has both '{STATE_PROMPT}' and '{NEWLINE}'")
    return "pi05" if state is not None else "pi0" if newline is not None else None


def _check_order(steps: Sequence[_Step]) -> None:
    """Relative before normalised before written into the prompt: another order is another policy."""
    places = [step.registry_name for step in steps]
    wanted = [name for name in (RELATIVE, NORMALIZER, STATE_PROMPT, TOKENIZER) if name in places]
    if STATE_PROMPT not in places:
        wanted = [name for name in wanted if name != TOKENIZER]
    if sorted(wanted, key=places.index) != wanted:
        raise ValueError(f"{PREPROCESSOR}: steps must come in the order {', '.join(wanted)}")
