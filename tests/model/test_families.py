"""The registry of model families: cards are read and networks built through it, and networks are named nowhere else."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pirl_server.model import families
from pirl_server.model.flow_model import FlowModel

SERVER = Path(families.__file__).parents[1]


CASES = [
    *(("pi0", "tiny-state"), ("pi0", "tiny"), ("pi05", "tiny-state"), ("pi05", "tiny")),
    *(("smolvla", "smolvla-tiny-state"), ("smolvla", "smolvla-tiny")),
]


def test_every_family_and_preset_is_tried() -> None:
    assert {family for family, _ in CASES} == set(families.FAMILIES)
    assert {preset for _, preset in CASES} == set(families.PRESETS)


@pytest.mark.parametrize(("family", "preset"), CASES)
def test_a_family_builds_what_its_configuration_says(family: str, preset: str) -> None:
    values = asdict(families.PRESETS[preset](6, 3, 5)) | {"family": family}  # type: ignore[call-overload]
    config = families.read_config(family, values)
    with torch.device("meta"):
        model = families.build(config)
    assert isinstance(model, FlowModel)
    assert (config.family, config.horizon, config.action_dim, config.state_dim) == (family, 5, 3, 6)
    assert (config.vision is None) == preset.endswith("tiny-state")
    assert config.state_token == (family != "pi05")
    assert {model.VLM_TOWER, model.EXPERT_TOWER} <= {name for name, _ in model.named_children()}
    vlm, expert = list(model.vlm_parameters()), list(model.expert_parameters())
    assert len(vlm) > 0
    assert len(expert) > 0
    assert len(vlm) + len(expert) == len(list(model.parameters()))


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="family 'pi7' is not supported"):
        families.read_config("pi7", {})


def names_a_family(source: str) -> bool:
    return re.search(r"\b(Pi0|SmolVla)(Config)?\b|model\.(pi0|smolvla)\b", source) is not None


def test_only_their_folders_the_registry_and_interchange_name_a_family() -> None:
    allowed = ("model/pi0/", "model/smolvla/", "model/families.py", "interchange/")
    sources = {path.relative_to(SERVER).as_posix(): path.read_text() for path in SERVER.rglob("*.py")}
    wrong = [name for name, source in sources.items() if names_a_family(source) and not name.startswith(allowed)]
    assert wrong == []
    assert names_a_family(sources["model/families.py"])
