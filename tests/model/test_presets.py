"""Models by name: their sizes, counted without building them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pirl_server.model.pi0.config import tiny
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.presets import PRESETS

MILLIONS = {"tiny": 1.6, "tiny_state": 0.5, "small": 13, "medium": 86, "pi0": 3238, "pi05": 3353}
"""pi0: vision 412.4, projector 2.4, language 1981.9, embedding 526.6, expert 311.5 and its projections; pi0.5 adds
37 modulations, 116.5, less 37 plain norms"""


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_sizes(name: str) -> None:
    with torch.device("meta"):
        model = Pi0(PRESETS[name]())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.03)


def test_every_preset_is_measured() -> None:
    assert set(MILLIONS) == set(PRESETS)


def test_the_published_parts_of_pi05() -> None:
    with torch.device("meta"):
        model = Pi0(PRESETS["pi05"]())

    def millions(start: str) -> float:
        return round(sum(p.numel() for name, p in model.named_parameters() if name.startswith(start)) / 1e6, 1)

    assert [millions(part) for part in ("vision.", "language.", "embed_tokens.")] == [412.4, 1981.9, 526.6]
    assert round(sum(p.numel() for name, p in model.named_parameters() if ".dense." in name) / 1e6, 1) == 116.5


@pytest.mark.parametrize(
    ("change", "words"),
    [({"family": "pi1"}, "'pi1' is not known"), ({"kv_heads": 3}, "multiple of 3"), ({"head_dim": 15}, "15")],
)
def test_sizes_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(tiny(), **change)  # type: ignore[arg-type]
