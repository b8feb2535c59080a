"""Learns a success model from the episodes of a store, measures it on others, and writes it to a folder."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from pirl_contract import Contract
from pirl_server.atomic_files import utc_now
from pirl_server.config.success import SuccessConfig, SuccessModel
from pirl_server.episodes.store import EpisodeStore
from pirl_server.registry.success_models import BACKBONE, HEAD, SuccessCard, write_card
from pirl_server.registry.wilson import wilson_interval
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.progress import Progress
from pirl_server.training.success import measures
from pirl_server.training.success.backbone import Backbone, Source, content_hash, open_backbone
from pirl_server.training.success.final_frames import Chosen, Frames, choose, frames, split
from pirl_server.training.success.fit import (
    Reading,
    fit_all,
    fit_head,
    joined,
    joined_inputs,
    new_head,
)
from pirl_server.training.success.head import Inputs, SuccessHead

ENCODE_AT_ONCE = 32
PACKAGES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True)
class Material:
    """The episodes of a job, read: their inputs or, where the backbone learns too, their images."""

    chosen: Chosen
    reading: Reading
    outcomes: NDArray[np.bool_]
    inputs: Inputs
    frames: Frames | None
    """None: the backbone stays as it is, and only features are kept"""


def learn(
    spec: SuccessModel, source: Source, store: EpisodeStore, out: Path, progress: Progress, job: str = ""
) -> Mapping[str, Any]:
    """Learn, measure and write `out`: card, head and backbone. Returns what is to be said of it.

    Raises ValueError for a camera that the robot lacks and as `open_backbone`; MoreEpisodesNeededError for too few
    successes or failures.
    """
    chosen = choose(store, spec)
    if not spec.dry_run:
        check_count([bool(each.success) for each in chosen.frozen], spec.config, chosen)
    backbone, source = open_backbone(source, spec.config.grid)
    if spec.dry_run:
        return {"dry_run": True} | _counts(chosen) | {"encoding_s": encoding_s(spec.config, store, chosen, backbone)}
    material = _read(spec.config, store, chosen, backbone, progress)
    check_count(material.outcomes, spec.config, chosen)
    learnt, calibration, test = split(chosen.used, spec.config.test_share, spec.config.calibration_share)
    head = new_head(material.inputs, spec.config, learnt, spec.seed)
    fitted = _fit(material, backbone, head, learnt, spec, progress)
    if progress.cancelled:
        return {"cancelled": True} | _counts(chosen)
    logits = _logits(head, fitted)
    outcomes = material.outcomes
    scale = measures.temperature(logits[calibration], outcomes[calibration])
    sure = measures.probability(logits[calibration] / scale)
    threshold = measures.confidence_threshold(sure, outcomes[calibration], spec.config.accuracy)
    measured = evaluation(logits[test], outcomes[test], scale, threshold)
    if measured["auc_low"] <= 0.5:
        threshold = None  # it may be no better than chance
    counts = {"learnt": len(learnt), "calibration": len(calibration), "test": len(test)}
    out.mkdir(parents=True)
    backbone.save(out / BACKBONE)
    save_file(head.state_dict(), out / HEAD)
    assert chosen.contract is not None
    card = _card(spec, source, chosen, material.reading, chosen.contract, head, out)
    write_card(out, SuccessCard(**card, temperature=scale, threshold=threshold,
                                measures=measured | counts, created=utc_now(), job=job))  # fmt: skip
    return {"temperature": scale, "threshold": threshold} | measured | counts | _counts(chosen)


def check_count(outcomes: NDArray[np.bool_] | list[bool], config: SuccessConfig, chosen: Chosen) -> None:
    """Raise MoreEpisodesNeededError unless `outcomes` [N] have enough successes and failures."""
    good, bad = int(np.sum(outcomes)), len(outcomes) - int(np.sum(outcomes))
    if min(good, bad) < config.min_episodes:
        why = ", ".join(f"{count} {reason}" for reason, count in chosen.left_out.items())
        raise MoreEpisodesNeededError(
            f"{good} successes and {bad} failures with a final observation, config.min_episodes asks for"
            f" {config.min_episodes} of each: label more episodes" + (f" (left out: {why})" if why else "")
        )


def encoding_s(config: SuccessConfig, store: EpisodeStore, chosen: Chosen, backbone: Backbone) -> float | None:
    """Return how long reading and encoding all chosen episodes will take, by the first few; None where there are none.

    Each is encoded once; what follows takes seconds, unless the backbone learns too.
    """
    began = time.perf_counter()
    first = next(frames(store, chosen), None)
    if first is None or chosen.contract is None:
        return None
    Reading(_cameras(config, chosen.contract), config.state, ()).inputs(backbone, first)
    return (time.perf_counter() - began) / len(first.ids) * len(chosen.frozen)


def evaluation(
    logits: NDArray[np.float64], outcomes: NDArray[np.bool_], temperature: float, threshold: float | None
) -> dict[str, Any]:
    """Measure logits and `outcomes`, both [N]: AUC, calibration before and after the temperature, what is proposed."""
    raw, calibrated = measures.probability(logits), measures.probability(logits / temperature)
    low, high = measures.auc_interval(logits, outcomes)
    right = (calibrated >= 0.5) == outcomes
    found = {
        "auc": measures.auc(logits, outcomes), "auc_low": low, "auc_high": high,
        "accuracy": float(right.mean()),
        "calibration_error": measures.calibration_error(calibrated, outcomes),
        "calibration_error_uncalibrated": measures.calibration_error(raw, outcomes),
        "reliability": [asdict(row) for row in measures.reliability(calibrated, outcomes)],
    }  # fmt: skip
    if threshold is not None:
        sure = np.maximum(calibrated, 1.0 - calibrated) >= threshold
        at_low, at_high = wilson_interval(int(right[sure].sum()), int(sure.sum())) if sure.any() else (0.0, 1.0)
        found |= {
            "coverage": float(sure.mean()),
            "accuracy_at_threshold": float(right[sure].mean()) if sure.any() else None,
            "accuracy_at_threshold_low": at_low, "accuracy_at_threshold_high": at_high,
        }  # fmt: skip
    return found


def _read(
    config: SuccessConfig, store: EpisodeStore, chosen: Chosen, backbone: Backbone, progress: Progress
) -> Material:
    """Read and encode the episodes; images are kept only where the backbone learns from them."""
    parts, kept, sentences = list[Frames](), list[Inputs](), list[str]()
    reading = Reading((), config.state, ())
    for part in frames(store, chosen):
        if not parts:
            assert chosen.contract is not None
            reading = Reading(_cameras(config, chosen.contract), config.state, ())
        kept.append(reading.inputs(backbone, part))
        sentences += part.instructions
        parts.append(part if config.train == "all" else _without_images(part))
        progress.progress(len(chosen.used), len(chosen.frozen), "episodes encoded")
        if progress.cancelled:
            break
    if not parts:
        check_count([], config, chosen)
    whole = joined(parts)
    reading = Reading(reading.cameras, config.state, tuple(sorted(set(sentences))))
    inputs = reading.beside(joined_inputs(kept).features, whole)
    outcomes = np.array([bool(each.success) for each in chosen.used])
    return Material(chosen, reading, outcomes, inputs, whole if config.train == "all" else None)


def _fit(
    material: Material,
    backbone: Backbone,
    head: SuccessHead,
    learnt: NDArray[np.int64],
    spec: SuccessModel,
    progress: Progress,
) -> Inputs:
    """Fit, and return the inputs of all episodes as the fitted backbone encodes them."""
    config, outcomes = spec.config, material.outcomes
    if material.frames is None:
        fit_head(head, material.inputs, outcomes, learnt, config, spec.seed, progress)
        return material.inputs
    fit_all(backbone, head, material.frames, material.reading, outcomes, learnt, config, spec.seed, progress)
    whole, images = material.frames, material.frames.images
    parts = []
    for at in range(0, len(whole.ids), ENCODE_AT_ONCE):
        here = [backbone.features(images[camera][at : at + ENCODE_AT_ONCE]) for camera in material.reading.cameras]
        parts.append(torch.stack(here, dim=1))
    return material.reading.beside(torch.cat(parts), whole)


@torch.inference_mode()
def _logits(head: SuccessHead, inputs: Inputs) -> NDArray[np.float64]:
    return head(inputs).double().numpy()  # type: ignore[no-any-return]


def _cameras(config: SuccessConfig, contract: Contract) -> tuple[str, ...]:
    known = tuple(camera.name for camera in contract.cameras)
    if unknown := set(config.cameras) - set(known):
        raise ValueError(f"config.cameras: '{min(unknown)}' is no camera of '{contract.robot}', which has {known}")
    if not known:
        raise ValueError(f"robot '{contract.robot}' has no camera: a success model looks at final images")
    return config.cameras or known


def _without_images(part: Frames) -> Frames:
    return Frames(part.ids, {}, part.state, part.instructions)


def _counts(chosen: Chosen) -> dict[str, Any]:
    outcomes = [each.success for each in chosen.used or chosen.frozen]
    return {
        "episodes": len(outcomes), "successes": outcomes.count(True), "failures": outcomes.count(False),
        "left_out": dict(+chosen.left_out),
    }  # fmt: skip


def _card(
    spec: SuccessModel,
    source: Source,
    chosen: Chosen,
    reading: Reading,
    contract: Contract,
    head: SuccessHead,
    out: Path,
) -> dict[str, Any]:
    lineage = {"episodes": str(len(chosen.used)), "episodes_sha256": chosen.sha256, "seed": str(spec.seed)}
    lineage |= {"config": json.dumps(asdict(spec.config), sort_keys=True), "python": platform.python_version()}
    lineage |= {name: version(name) for name in PACKAGES}
    select = {"select": json.dumps(asdict(spec.select), sort_keys=True)}
    lineage |= select if spec.dataset is None else {"dataset": spec.dataset}
    return {
        "task": spec.task, "instructions": reading.instructions, "contract_hash": contract.hash,
        "cameras": reading.cameras, "state": reading.state, "backbone": content_hash(out / BACKBONE),
        "backbone_source": source.name, "backbone_revision": source.revision, "grid": spec.config.grid,
        "head": asdict(head.shape), "lineage": lineage,
    }  # fmt: skip
