"""Builds the model card of an imported checkpoint from its folder and the import options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pirl_contract import Contract
from pirl_server.interchange.checkpoints.import_options import Request
from pirl_server.interchange.checkpoints.robot_contract import CAMERA_PX, check_sides, read_contract, slots, template
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.statistics import NEEDED, normalisation, read_norm_stats
from pirl_server.interchange.checkpoints.units_check import check_relative, check_units
from pirl_server.interchange.checkpoints.widths import Kind, robot_width, without_padding
from pirl_server.model.flow_model import FlowModelConfig
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
from pirl_server.policy.resize import Method

NOISE_LEVEL = 0.5
"""exploration that a first fine-tuning starts from"""
FAMILY_SCHEME: dict[str, Scheme] = {"pi0": "zscore", "pi05": "quantile", "smolvla": "zscore"}
KINDS: tuple[Kind, Kind] = ("state", "action")
PROMPTS: dict[str, tuple[PromptFormat, ...]] = {
    "pi0": ("pi0",),
    "pi05": ("pi05", "pi05_without_state"),
    "smolvla": ("smolvla",),
}
RESIZES: dict[str, Method] = {"openpi": "pil", "lerobot": "torch"}


def answered(request: Request, side: Side) -> Side:
    """The folder's own words, with the person's in front of them. Raises ValueError for an unreadable file."""
    statistics = side.statistics if request.norm_stats is None else read_norm_stats(request.norm_stats)
    return replace(side, horizon=side.horizon or request.horizon, statistics=statistics)


def make_card(
    request: Request, side: Side, config: FlowModelConfig, tokenizer: TokenizerFile, lineage: Mapping[str, str]
) -> ModelCard:
    """Raise ValueError for missing and for contradicting information."""
    if side.horizon is not None and request.horizon not in (None, side.horizon):
        raise ValueError(f"--horizon {request.horizon}: config.json says {side.horizon}")
    family = config.family
    prompt = _prompt(request, side, family)
    given = None if request.contract is None else read_contract(request.contract)
    dims, (state, action) = _normalisations(side, config, given)
    contract = _contract(request, side, given, dims)
    delta = _delta(request, side, dims)
    check_statistics(state, [field.name for field in contract.state], "state")
    check_statistics(action, [field.name for field in contract.action], "action")
    views = slots(side.cameras, contract, request.cameras, side.camera_names)
    if given is not None:
        check_relative(given, delta)
        check_units(given, state, action, delta)
        check_sides(views, given, side.camera_sizes)
    return ModelCard(
        name=request.source.resolve().name,
        contract=contract,
        model=config,
        features=PRETRAINED,
        action_scale=(),
        execute_horizon=_execute_horizon(request, side, config),
        denoise_steps=side.denoise_steps,
        noise_level=NOISE_LEVEL,
        instructions=request.instructions,
        task="",
        family=family,
        tokenizer=tokenizer.kind,
        lineage=dict(lineage),
        processing=Processing(
            prompt=prompt,
            clean_prompt=side.stack == "openpi" or prompt == "pi05",
            tokenizer=tokenizer,
            slots=views,
            resize="torch_left_top" if family == "smolvla" else RESIZES[side.stack],
            pad=request.pad,
            state=state,
            action=action,
            delta=delta,
            prompt_state_dim=_prompt_state_dim(request, side, prompt, dims[0]),
        ),
    )


def _prompt(request: Request, side: Side, family: str) -> PromptFormat:
    said: PromptFormat | None = side.prompt
    if said == "pi0" and family == "pi05":
        said = "pi05_without_state"
    prompt = request.prompt or said or ("pi0" if family == "pi0" and side.stack == "openpi" else None)
    allowed = PROMPTS[family]
    if prompt is None:
        raise ValueError(f"a {family} folder without its prompt format: give --prompt {' or '.join(allowed)}")
    if prompt not in allowed:
        raise ValueError(f"prompt {prompt} does not go with {family} weights; there are: {', '.join(allowed)}")
    return prompt


def _prompt_state_dim(request: Request, side: Side, prompt: PromptFormat, state_dim: int) -> int:
    """Entries of the state in the prompt, 0 for the robot's own: lerobot 0.4.0 to 0.4.4 filled them up with zeros."""
    padded = side.prompt_state_dim or 0
    if side.stack != "lerobot" or prompt != "pi05":
        if request.prompt_state is not None:
            raise ValueError(f"--prompt-state {request.prompt_state} is for pi05 prompts of lerobot, not for {prompt}")
        return 0
    if padded <= state_dim:
        return 0
    choice = request.prompt_state or side.prompt_state
    if choice is None:
        raise ValueError(
            f"nothing in this folder says whether its prompts have {state_dim} state entries (lerobot 0.5 and later) or"
            f" {padded}, filled up with zeros (0.4): give --prompt-state robot or --prompt-state padded"
        )
    return padded if choice == "padded" else 0


def _normalisations(
    side: Side, config: FlowModelConfig, contract: Contract | None
) -> tuple[tuple[int, int], tuple[Normalisation, Normalisation]]:
    """Widths of the robot's state and action, and their statistics without padding."""
    schemes = side.schemes or (FAMILY_SCHEME[config.family],) * 2
    padded = {"state": config.state_dim, "action": config.action_dim}
    robot = (None, None) if contract is None else (contract.state_dim, contract.action_dim)
    widths, found = [], []
    for kind, scheme, declared, width in zip(KINDS, schemes, side.real_dims, robot):
        ends = side.ranges.get(kind, NEEDED["quantile"])
        each = normalisation(kind, side.statistics.get(kind), scheme, side.stack, ends)
        widths.append(robot_width(kind, each, declared, padded[kind], width))
        found.append(without_padding(kind, each, widths[-1]))
    return (widths[0], widths[1]), (found[0], found[1])


def _contract(request: Request, side: Side, given: Contract | None, dims: tuple[int, int]) -> Contract:
    if given is None:
        real = {key: side.camera_names.get(key, key) for key in side.cameras if key not in side.empty_cameras}
        return template({name: side.camera_sizes.get(key, (CAMERA_PX, CAMERA_PX)) for key, name in real.items()}, *dims)
    if (given.state_dim, given.action_dim) != dims:
        raise ValueError(
            f"'{request.contract}' has {given.state_dim} state and {given.action_dim} action dimensions, the "
            f"checkpoint {dims[0]} and {dims[1]}"
        )
    return given


def _delta(request: Request, side: Side, dims: tuple[int, int]) -> tuple[bool, ...]:
    delta = request.delta
    if delta is None and side.delta is not None:
        delta = side.delta[: dims[1]]
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


def _execute_horizon(request: Request, side: Side, config: FlowModelConfig) -> int:
    chosen = request.execute_horizon or side.execute_horizon or max(1, config.horizon // 2)
    if not 1 <= chosen <= config.horizon:
        raise ValueError(f"--execute-horizon {chosen} must be 1 to the horizon, {config.horizon}")
    return chosen
