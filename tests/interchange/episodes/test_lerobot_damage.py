"""A LeRobotDataset that was damaged, or made up, is read or is a ValueError; the process that reads it lives."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exchanged import PEER_CONTRACT

from pirl_server.config.interchange import ImportEpisodes
from pirl_server.interchange.episodes.import_run import open_path

MUTATIONS = 40
JUNK: tuple[Any, ...] = (
    None, -1, 0, 1e308, float("nan"), "x", "", [], {}, [[]], True, 2**70, "../x", {"a": 1}, ["b"],
)  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """A JSON value with one part exchanged or removed."""
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        if (pick := chance.random()) < 0.15:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: chance.choice(JUNK) if pick < 0.5 else mutated(value[key], chance)}
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]
    return chance.choice(JUNK)


def damage(folder: Path, chance: random.Random) -> None:
    """Change one file: a value of its JSON, or bytes, or its length."""
    path = folder / "meta" / "info.json"
    if chance.random() < 0.5:
        path = chance.choice(sorted(each for each in folder.rglob("*") if each.is_file()))
    if path.suffix == ".json":
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), chance)))
        return
    raw = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 20))):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    path.write_bytes(raw[: chance.randrange(len(raw))] if chance.random() < 0.2 else raw)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_damage_is_one_line_that_names_it(made: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    whole, contract = made(kind), tmp_path / "arm.json"
    contract.write_text(PEER_CONTRACT.to_json())
    rejected = list[str]()
    for number in range(MUTATIONS):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        damage(folder, random.Random(number))
        try:
            for candidate in open_path(ImportEpisodes(path=str(folder), contract=str(contract))):
                candidate.read()
        except ValueError as error:
            rejected.append(str(error))
    assert 0 < len(rejected) < MUTATIONS
    assert [each for each in rejected if "\n" in each] == []
