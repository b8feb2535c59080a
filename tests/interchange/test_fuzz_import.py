"""Hundreds of damaged checkpoints: every one is refused in one line, and nothing of it stays on the disk."""

from __future__ import annotations

import random
import shutil
import zlib
from collections import Counter
from pathlib import Path

import pytest
from damage import FILE_DAMAGE, PATH_DAMAGE, TENSOR_DAMAGE
from damage_side import side_damage
from foreign import make, request

from pirl_server.interchange.checkpoints.importer import import_checkpoint
from pirl_server.interchange.checkpoints.source_metadata import Stack
from pirl_server.model.pi0.config import Family

CASES = 6
"""of each kind of damage"""
FOLDERS = [("openpi", "pi0"), ("openpi", "pi05"), ("lerobot", "pi0"), ("lerobot", "pi05")]


def fault_of(stack: Stack, family: Family, source: Path, out: Path) -> str | None:
    """What is wrong with the result of importing this damaged folder; None: refused as it should be."""
    try:
        import_checkpoint(request(stack, source, out, family))
    except ValueError as error:
        if type(error) is not ValueError and not isinstance(error, UnicodeError):
            return f"raised {type(error).__name__}"
        text = str(error)
        if "\n" in text or not 10 < len(text) < 700:
            return f"said {text!r}"
        left = [path.name for path in out.parent.iterdir() if path.name not in ("outside", source.name)]
        return f"left {left}" if [name for name in left if not name.startswith("model-")] else None
    return "was imported"


@pytest.mark.parametrize(("stack", "family"), FOLDERS)
def test_every_damaged_checkpoint_is_refused(tmp_path: Path, stack: Stack, family: Family) -> None:
    intact = make(stack, tmp_path / "intact", family)
    kinds = TENSOR_DAMAGE | FILE_DAMAGE | PATH_DAMAGE | side_damage(stack, family)
    faults: Counter[str] = Counter()
    for kind, damage in kinds.items():
        for case in range(CASES):
            home = tmp_path / "case"
            shutil.copytree(intact, home / "source", symlinks=True)
            damage(home / "source", random.Random(zlib.crc32(f"{stack}{family}{kind}{case}".encode())))
            if (fault := fault_of(stack, family, home / "source", home / "out")) is not None:
                faults[f"{kind} {case}: {fault}"] += 1
            shutil.rmtree(home)
    assert faults == {}
    assert len(kinds) * CASES > 200


@pytest.mark.parametrize(("stack", "family"), FOLDERS)
def test_the_undamaged_ones_are_imported(tmp_path: Path, stack: Stack, family: Family) -> None:
    """Negative control: what is copied and left alone passes."""
    shutil.copytree(make(stack, tmp_path / "intact", family), tmp_path / "source", symlinks=True)
    assert fault_of(stack, family, tmp_path / "source", tmp_path / "out") == "was imported"
    assert (tmp_path / "out" / "card.json").is_file()
