"""A dry run from the wire to the list of episodes: said at the start or by a step, and kept; unknown in old stores."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pirl_contract import Alteration, Contract, StepOutcome
from pirl_server.api.episode_schemas import EpisodeView
from pirl_server.episodes import manifest
from pirl_server.episodes.store import GROUP, EpisodeStore

BITS = (Alteration.NONE, Alteration.DRY_RUN, Alteration.DRY_RUN | Alteration.CLIPPED)


def drive(
    service: Any, contract: Contract, observe: Any, told: dict[str, str], bits: Sequence[Alteration]
) -> EpisodeStore:
    """One episode over gRPC with a step for each of `bits`; returns the store, opened anew."""
    client = service.connect()
    client.start_episode(contract, "push the cube to the goal", told)
    chunk = client.infer(observe(0))
    two, three = np.zeros(2, np.float32), np.zeros(3, np.float32)
    steps = [
        StepOutcome(chunk.chunk_id, i, two, three, alterations=altered, time_ns=i + 1)
        for i, altered in enumerate(bits)
    ]  # fmt: skip
    client.end_episode("success", "operator", "operator", outcomes=steps)
    return EpisodeStore(service.store.root)


@pytest.mark.parametrize(
    ("told", "bits", "dry_run"),
    [
        ({"dry_run": "true"}, BITS[1:], True),
        ({"dry_run": "true"}, BITS[:1], True),
        ({}, BITS, True),
        ({}, [*BITS[:1], BITS[2]], True),
        ({}, [*BITS[:1], Alteration.CONTINUED | Alteration.CLIPPED], False),
        ({"dry_run": "false"}, BITS[:1], False),
    ],
)  # fmt: skip
def test_it_is_kept_however_it_was_told(
    service: Any, contract: Contract, observe: Any, told: dict[str, str], bits: Sequence[Alteration], dry_run: bool
) -> None:
    store = drive(service, contract, observe, told, bits)
    [summary] = store.list()
    episode = store.open(summary.id)
    assert episode.info.dry_run is summary.dry_run is EpisodeView.of(store.entry(summary.id), None).dry_run is dry_run
    assert episode.steps.alterations.tolist() == [int(each) for each in bits]
    group = zarr.open_group(zarr.storage.ZipStore(store.root / summary.path), mode="r")
    assert dict(group.attrs)["dry_run"] is dry_run
    assert episode.info.metadata == told


def test_a_store_from_before_reads_as_no_dry_run(service: Any, contract: Contract, observe: Any) -> None:
    store = drive(service, contract, observe, {"dry_run": "true"}, BITS)
    [summary] = store.list()
    home = (store.root / summary.path).parent
    forget_in_group(home / GROUP)
    path = home / manifest.NAME
    kept = json.loads(path.read_text())["summary"]
    del kept["dry_run"]
    path.unlink()
    manifest.seal(home, kept)
    old = EpisodeStore(store.root)
    assert old.list()[0].dry_run is old.open(summary.id).info.dry_run is False


def forget_in_group(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = json.loads(members["zarr.json"])
    del root["attributes"]["dry_run"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {"zarr.json": json.dumps(root).encode()}).items():
            archive.writestr(name, data)
