"""Builds the model card of an imported checkpoint from its folder and the import options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pirl_contract import Contract
from pirl_server.interchange.checkpoints.import_options import Request
from pirl_server.interchange.checkpoints.robot_contract import CAMERA_PX, read_contract, slots, template
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.statistics import normalisation, read_norm_stats
from pirl_server.model.pi0.config import Family, Pi0Config
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.normalisation import check_statistics
from pirl_server.policy.processing_spec import (
    PRETRAINED,
    Normalisation,
    Processing,
    PromptFormat,
    Scheme,
    TokenizerFile,
)

NOISE_LEVEL = 0.5
"""exploration that a first fine-tuning starts from"""
FAMILY_SCHEME: dict[Family, Scheme] = {"pi0": "zscore", "pi05": "quantile"}
PROMPTS: dict[Family, tuple[PromptFormat, ...]] = {"pi0": ("pi0",), "pi05": ("pi05", "pi05_without_state")}


def answered(request: Request, side: Side) -> Side:
    """The folder's own words, with the person's in front of them. Raises ValueError for an unreadable file."""
    statistics = side.statistics if request.norm_stats is None else read_norm_stats(request.norm_stats)
    return replace(side, horizon=side.horizon or request.horizon, statistics=statistics)


def make_card(
    request: Request, side: Side, config: Pi0Config, tokenizer: TokenizerFile, lineage: Mapping[str, str]
) -> ModelCard:
    """Raise ValueError for missing and for contradicting information."""
    if side.horizon is not None and request.horizon not in (None, side.horizon):
        raise ValueError(f"--horizon {request.horizon}: config.json says {side.horizon}")
    family = config.family
    prompt = _prompt(request, side, family)
    schemes = side.schemes or (FAMILY_SCHEME[family],) * 2
    state = normalisation("state", side.statistics.get("state"), schemes[0], side.stack)
    action = normalisation("action", side.statistics.get("action"), schemes[1], side.stack)
    dims = (_dim("state", state, side.real_dims[0], config), _dim("action", action, side.real_dims[1], config))
    contract = _contract(request, side, dims)
    delta = _delta(request, side, dims)
    check_statistics(state, [field.name for field in contract.state], "state")
    check_statistics(action, [field.name for field in contract.action], "action")
    return ModelCard(
        name=request.source.resolve().name,
        contract=contract,
        model=config,
        features=PRETRAINED,
        action_scale=(),
        execute_horizon=_execute_horizon(request, side, config),
        denoise_steps=side.denoise_steps,
        noise_level=NOISE_LEVEL,
        instructions=(),
        task="",
        family=family,
        tokenizer=tokenizer.kind,
        lineage=dict(lineage),
        processing=Processing(
            prompt=prompt,
            clean_prompt=side.stack == "openpi" or prompt == "pi05",
            tokenizer=tokenizer,
            slots=slots(side.cameras, contract, request.cameras),
            resize="pil" if side.stack == "openpi" else "torch",
            pad=request.pad,
            state=state,
            action=action,
            delta=delta,
        ),
    )


def _prompt(request: Request, side: Side, family: Family) -> PromptFormat:
    said: PromptFormat | None = side.prompt
    if said == "pi0" and family == "pi05":
        said = "pi05_without_state"
    prompt = request.prompt or said or ("pi0" if family == "pi0" else None)
    allowed = PROMPTS[family]
    if prompt is None:
        raise ValueError(f"a pi0.5 folder does not define its prompt format: give --prompt {' or '.join(allowed)}")
    if prompt not in allowed:
        raise ValueError(f"prompt {prompt} does not go with {family} weights; there are: {', '.join(allowed)}")
    return prompt


def _dim(kind: str, found: Normalisation, declared: int | None, config: Pi0Config) -> int:
    """Real width of the state or the action: of its statistics, else as declared."""
    width = len(found.first) or declared
    most = config.state_dim if kind == "state" else config.action_dim
    if width is None:
        raise ValueError(f"the number of {kind} dimensions is unknown: give statistics with --norm-stats")
    if declared not in (None, width):
        raise ValueError(f"the {kind} has {declared} dimensions in config.json and {width} in its statistics")
    if width > most:
        raise ValueError(f"the {kind} has statistics of {width} dimensions, the model reads {most}")
    return width


def _contract(request: Request, side: Side, dims: tuple[int, int]) -> Contract:
    if request.contract is None:
        real = [key for key in side.cameras if key not in side.empty_cameras]
        return template({key: side.camera_sizes.get(key, (CAMERA_PX, CAMERA_PX)) for key in real}, *dims)
    contract = read_contract(request.contract)
    if (contract.state_dim, contract.action_dim) != dims:
        raise ValueError(
            f"'{request.contract}' has {contract.state_dim} state and {contract.action_dim} action dimensions, the "
            f"checkpoint {dims[0]} and {dims[1]}"
        )
    return contract


def _delta(request: Request, side: Side, dims: tuple[int, int]) -> tuple[bool, ...]:
    delta = side.delta if request.delta is None else request.delta
    if delta is None:
        raise ValueError(
            "the folder doesn't define which actions are relative to the state: give --delta, a 1 or 0 for each of the "
            f"{dims[1]} dimensions, or --delta none"
        )
    if delta and len(delta) != dims[1]:
        raise ValueError(f"--delta has {len(delta)} entries, the action {dims[1]} dimensions")
    if any(delta[dims[0] :]):
        raise ValueError(
            f"--delta: action {dims[0] + delta[dims[0] :].index(True)} is relative to a state entry that does not exist"
        )
    return delta if any(delta) else ()


def _execute_horizon(request: Request, side: Side, config: Pi0Config) -> int:
    chosen = request.execute_horizon or side.execute_horizon or max(1, config.horizon // 2)
    if not 1 <= chosen <= config.horizon:
        raise ValueError(f"--execute-horizon {chosen} must be 1 to the horizon, {config.horizon}")
    return chosen
