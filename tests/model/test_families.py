"""The registry of model families: cards are read and networks built through it, and Pi0 is named nowhere else."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from pirl_server.model import families
from pirl_server.model.flow_model import FlowModel

SERVER = Path(families.__file__).parents[1]


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("preset", families.PRESETS)
def test_a_family_builds_what_its_configuration_says(family: str, preset: str) -> None:
    values = asdict(families.PRESETS[preset](6, 3, 5)) | {"family": family}  # type: ignore[call-overload]
    config = families.read_config(family, values)
    with torch.device("meta"):
        model = families.build(config)
    assert isinstance(model, FlowModel)
    assert (config.family, config.horizon, config.action_dim, config.state_dim) == (family, 5, 3, 6)
    assert (config.vision is None) == (preset == "tiny-state")
    assert config.state_token == (family == "pi0")
    assert {model.VLM_TOWER, model.EXPERT_TOWER} <= {name for name, _ in model.named_children()}
    vlm, expert = list(model.vlm_parameters()), list(model.expert_parameters())
    assert len(vlm) > 0
    assert len(expert) > 0
    assert len(vlm) + len(expert) == len(list(model.parameters()))


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="family 'pi7' is not supported"):
        families.read_config("pi7", {})


def names_pi0(source: str) -> bool:
    return re.search(r"\bPi0(Config)?\b|model\.pi0\b", source) is not None


def test_only_its_folder_the_registry_and_interchange_name_pi0() -> None:
    allowed = ("model/pi0/", "model/families.py", "interchange/")
    sources = {path.relative_to(SERVER).as_posix(): path.read_text() for path in SERVER.rglob("*.py")}
    wrong = [name for name, source in sources.items() if names_pi0(source) and not name.startswith(allowed)]
    assert wrong == []
    assert names_pi0(sources["model/families.py"])
