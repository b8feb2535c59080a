"""There and back again: names, shapes, types, numbers and side files are what they were, to the last bit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from foreign import EMBEDDING, HEAD, lerobot_folder, make, openpi_folder, request, shard, weights_of
from safetensors import safe_open
from toy_arm import save_toy

from pirl_server.interchange.checkpoints.exporter import export_checkpoint
from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.source_metadata import Stack
from pirl_server.interchange.checkpoints.tensor_folder import TensorFolder
from pirl_server.policy.checkpoint import load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import make_noise_actor

STACKS, FAMILIES = ("openpi", "lerobot"), ("pi0", "pi05")
CASES = [*((stack, family) for stack in STACKS for family in FAMILIES), ("lerobot", "smolvla")]


def tensors(folder: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    opened = TensorFolder.open(folder)
    return {
        name: (layout.dtype, layout.shape, opened.get(name).contiguous().view(torch.uint8).numpy().tobytes())
        for name, layout in opened.layouts.items()
    }


def side_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("model")
    }


@pytest.mark.parametrize(("stack", "family"), CASES)
@pytest.mark.parametrize("sharded", [False, True], ids=["one", "sharded"])
def test_a_round_trip_is_exact(tmp_path: Path, stack: Stack, family: str, sharded: bool) -> None:
    source = make(stack, tmp_path / "source", family)
    if sharded:
        shard(source)
    import_checkpoint(request(stack, source, tmp_path / "ours", family))
    assert export_checkpoint(stack, tmp_path / "ours", tmp_path / "back") == []
    assert tensors(tmp_path / "back") == tensors(source)
    assert side_files(tmp_path / "back") == side_files(source)
    if not sharded:
        with safe_open(tmp_path / "back" / "model.safetensors", "pt") as file:
            assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("kept", [(HEAD,), (EMBEDDING,), (HEAD, EMBEDDING)], ids=["head", "embedding", "both"])
@pytest.mark.parametrize("stack", STACKS)
def test_the_text_embedding_keeps_its_names(tmp_path: Path, stack: Stack, kept: tuple[str, ...]) -> None:
    weights = weights_of("pi05")
    text = weights.pop(HEAD)
    weights |= {name: text.clone() for name in kept}
    source = (openpi_folder if stack == "openpi" else lerobot_folder)(tmp_path / "source", "pi05", weights)
    import_checkpoint(request(stack, source, tmp_path / "ours", "pi05"))
    export_checkpoint(stack, tmp_path / "ours", tmp_path / "back")
    assert tensors(tmp_path / "back") == tensors(source)


def test_mixed_types_survive(tmp_path: Path) -> None:
    mixed = {name: value.bfloat16() if "_proj." in name else value for name, value in weights_of("pi0").items()}
    source = openpi_folder(tmp_path / "source", "pi0", mixed)
    import_checkpoint(request("openpi", source, tmp_path / "ours", "pi0"))
    export_checkpoint("openpi", tmp_path / "ours", tmp_path / "back")
    assert tensors(tmp_path / "back") == tensors(source)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stack", STACKS)
def test_what_was_trained_here_goes_back_with_its_source(tmp_path: Path, stack: Stack, family: str) -> None:
    source = make(stack, tmp_path / "source", family)
    import_checkpoint(request(stack, source, tmp_path / "ours", family))
    card, weights, _ = load_checkpoint(tmp_path / "ours")
    weights["action_out_proj.bias"] = weights["action_out_proj.bias"] + 1
    trained = replace(card, lineage={"parent": "0", "method": "sft"})
    save_checkpoint(tmp_path / "trained", trained, weights, parent=tmp_path / "ours")
    export_checkpoint(stack, tmp_path / "trained", tmp_path / "back")
    old, new = tensors(source), tensors(tmp_path / "back")
    assert old.keys() == new.keys()
    assert [name for name in old if old[name] != new[name]] == [name for name in old if "action_out_proj.bias" in name]
    assert side_files(tmp_path / "back") == side_files(source)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("stack", "other"), [STACKS, STACKS[::-1]])
def test_the_other_layout_is_made_from_the_card(tmp_path: Path, stack: Stack, other: Stack, family: str) -> None:
    """Read back, it is the same policy; what the layouts mean differently is said by `stack` alone."""
    source = make(stack, tmp_path / "source", family)
    card, _ = import_checkpoint(request(stack, source, tmp_path / "ours", family))
    assert len(export_checkpoint(other, tmp_path / "ours", tmp_path / "theirs")) == 1
    assert card.processing is not None
    again, _ = import_checkpoint(
        request(other, tmp_path / "theirs", tmp_path / "again", family, delta=card.processing.delta)
    )
    assert again.processing is not None
    read = again.model.state_dim if family == "pi05" else card.model.state_dim  # pi0.5 has no state to pad
    assert again.model == replace(card.model, state_dim=read)
    assert (again.processing.prompt, again.processing.delta) == (card.processing.prompt, card.processing.delta)
    for kind in ("state", "action"):
        mine, theirs = asdict(card.processing)[kind], asdict(again.processing)[kind]
        assert (mine["scheme"], theirs["convention"]) == (theirs["scheme"], other)
        assert mine["first"] == pytest.approx(theirs["first"], rel=1e-6)
        assert mine["second"] == pytest.approx(theirs["second"], rel=1e-6)
    ours, back = load_checkpoint(tmp_path / "ours")[1], load_checkpoint(tmp_path / "again")[1]
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], back[name]) for name in ours)


def test_a_policy_with_features_of_our_own_stays_here(tmp_path: Path) -> None:
    save_toy(tmp_path / "toy")
    with pytest.raises(ValueError, match="which only this server computes"):
        export_checkpoint("openpi", tmp_path / "toy", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("guidance", "actor", "words"),
    [
        (1.5, False, "guidance 1.5.*set guidance to 1 in .*card.json"),
        (None, True, "has a noise actor.*export its parent 0a1b"),
    ],
    ids=["guidance", "noise-actor"],
)
def test_what_acts_by_more_than_its_flow_stays_here(
    tmp_path: Path, guidance: float | None, actor: bool, words: str
) -> None:
    """The folder would act otherwise elsewhere, and nothing in it would say so."""
    import_checkpoint(request("openpi", openpi_folder(tmp_path / "a", "pi0"), tmp_path / "ours", "pi0"))
    card, weights, _ = load_checkpoint(tmp_path / "ours")
    card = replace(card, guidance=guidance, lineage={"parent": "0a1b"})
    steering = make_noise_actor(card).state_dict() if actor else None
    save_checkpoint(tmp_path / "made", card, weights, parent=tmp_path / "ours", noise_actor=steering)
    for stack in STACKS:
        with pytest.raises(ValueError, match=words):
            export_checkpoint(stack, tmp_path / "made", tmp_path / "back")  # type: ignore[arg-type]
    assert not (tmp_path / "back").exists()


def test_a_conditioned_policy_goes_with_the_words_that_it_needs(tmp_path: Path) -> None:
    import_checkpoint(request("openpi", openpi_folder(tmp_path / "a", "pi0"), tmp_path / "ours", "pi0"))
    card, weights, _ = load_checkpoint(tmp_path / "ours")
    save_checkpoint(tmp_path / "made", replace(card, guidance=1.0), weights, parent=tmp_path / "ours")
    (note,) = export_checkpoint("openpi", tmp_path / "made", tmp_path / "back")
    assert "end each instruction with ' (good)'" in note


def test_nothing_is_written_over(tmp_path: Path) -> None:
    import_checkpoint(request("openpi", openpi_folder(tmp_path / "a", "pi0"), tmp_path / "ours", "pi0"))
    with pytest.raises(ValueError, match="already exists"):
        export_checkpoint("openpi", tmp_path / "ours", tmp_path / "a")
    with pytest.raises(ValueError, match="already exists"):
        import_checkpoint(request("openpi", tmp_path / "a", tmp_path / "ours", "pi0"))
