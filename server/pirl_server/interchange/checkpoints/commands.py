"""`pirl import` and `pirl export`: arguments in, one function call, and a summary of what was chosen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from pirl_server.interchange.checkpoints.exporter import export_checkpoint
from pirl_server.interchange.checkpoints.import_options import Request
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.robot_contract import TEMPLATE
from pirl_server.interchange.checkpoints.units_check import unusual_units
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import PromptFormat

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def import_command(arguments: Sequence[str]) -> int:
    """Turn a pi0, pi0.5 or SmolVLA checkpoint of openpi or lerobot into one that is served here."""
    options = _import_parser().parse_args(arguments)
    card, version = import_checkpoint(
        Request(
            stack=options.stack,
            source=options.source,
            out=options.out,
            tokenizer=options.tokenizer,
            prompt=options.prompt,
            prompt_state=options.prompt_state,
            instructions=tuple(options.instruction),
            delta=None if options.delta is None else parse_delta(options.delta),
            contract=options.contract,
            cameras=dict(parse_camera(word) for word in options.camera),
            norm_stats=options.norm_stats,
            asset_id=options.asset_id,
            horizon=options.horizon,
            execute_horizon=options.execute_horizon,
            dtype=None if options.dtype is None else DTYPES[options.dtype],
            pad=options.pad,
        )
    )
    print("\n".join([*summary(card), *(f"check     {line}" for line in unusual_units(card))]))
    if card.contract.robot == TEMPLATE:
        print("no --contract given: this template matches no robot; save it, edit it and import again with it:")
        print(card.contract.to_json())
    print(f"{options.out}: version {version}")
    return 0


def export_command(arguments: Sequence[str]) -> int:
    """Write a checkpoint in openpi's or lerobot's layout."""
    parser = argparse.ArgumentParser(prog="pirl export", description=export_command.__doc__)
    parser.add_argument("stack", choices=("openpi", "lerobot"))
    parser.add_argument("checkpoint", type=Path, help="folder with card.json")
    parser.add_argument("--out", type=Path, required=True, help="new folder to write")
    options = parser.parse_args(arguments)
    for line in export_checkpoint(options.stack, options.checkpoint, options.out):
        print(line)
    print(options.out)
    return 0


def summary(card: ModelCard) -> list[str]:
    """What a person should compare with what they know about the policy, one line each."""
    processing = card.processing
    assert processing is not None
    relative = "".join("1" if each else "0" for each in processing.delta) or "none"
    cameras = ", ".join(f"{slot.key} <- {slot.camera or 'absent'}" for slot in processing.slots)
    state, action = processing.state.scheme, processing.action.scheme
    written = processing.prompt_state_dim or card.contract.state_dim
    prompt = processing.prompt + (f" with {written} state entries" if processing.prompt == "pi05" else "")
    return [
        f"model     {card.family}, {card.model.depth} layers",
        f"chunk     plays {card.execute_horizon} of {card.model.horizon} actions, {card.denoise_steps} denoise steps",
        f"prompt    {prompt}, tokenizer {processing.tokenizer.kind} of {processing.tokenizer.vocabulary}",
        f"cameras   {cameras}; {processing.resize} resize, bars {processing.pad}",
        f"state     {card.contract.state_dim} of {card.model.state_dim}, {state}",
        f"action    {card.contract.action_dim} of {card.model.action_dim}, {action}, relative {relative}",
    ]


def parse_delta(text: str) -> tuple[bool, ...]:
    """`1,1,0` or `none`. Raises ValueError for anything else."""
    words = [] if text == "none" else text.split(",")
    if any(word not in ("0", "1") for word in words):
        raise ValueError(f"--delta {text!r} must be none, or a 1 or 0 for each action dimension: 1,1,1,1,1,1,0")
    return tuple(word == "1" for word in words)


def parse_camera(word: str) -> tuple[str, str]:
    """KEY=NAME. Raises ValueError for another form."""
    key, equals, name = word.partition("=")
    if not (key and equals and name):
        raise ValueError(f"--camera {word!r} must be KEY=NAME: the model's image input, the contract's camera")
    return key, name


def _import_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pirl import", description=import_command.__doc__)
    add = parser.add_argument
    add("stack", choices=("openpi", "lerobot"))
    add("source", type=Path, metavar="PATH", help="folder with model.safetensors, or with its index and shards")
    add("--out", type=Path, required=True, help="checkpoint new folder to write")
    files = "PaliGemma's .model or tokenizer.json, SmolVLM's tokenizer.json; 'bytes' for our own small models"
    add("--tokenizer", required=True, help=files)
    add("--contract", type=Path, help="the robot as JSON; default: a template, printed")
    add("--camera", action="append", default=[], metavar="KEY=NAME", help="which camera feeds which image input")
    add("--prompt", choices=get_args(PromptFormat), help="prompt format; required for pi0.5 from openpi")
    add("--prompt-state", choices=("robot", "padded"), help="state in pi05 prompts; padded: as lerobot 0.4 wrote them")
    add("--instruction", action="append", default=[], metavar="TEXT", help="what it was trained to do; may be repeated")
    add("--delta", metavar="1,1,0|none", help="which actions are relative to the state; required from openpi")
    add("--norm-stats", type=Path, metavar="FILE", help="norm_stats.json to use instead of the folder's statistics")
    add("--asset-id", help="asset id of the statistics, when assets/ has several")
    add("--horizon", type=int, help="length of a chunk, when there is no config.json")
    add("--execute-horizon", type=int, help="actions played of a chunk; default: n_action_steps, or half the chunk")
    add("--dtype", choices=DTYPES, help="cast the weights; default: as they are")
    add("--pad", type=int, choices=(-1, -3), default=-1, help="bars beside images; -3: fine-tuned with lerobot 0.4")
    return parser
