"""A success model: it learns from final images how episodes end, and proposes labels for those that have none."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import CHECKED, about, flag, number, text
from pirl_server.config.scheduling import Scheduled

_LINE = r"^[^\x00-\x1f\x7f]{1,1000}$"
Share = Annotated[float, number("of the labelled episodes, of successes and failures alike", "share", gt=0, le=0.5)]


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class SuccessConfig:
    """How a success model learns, and how sure it must be to propose a label.

    Raises ValueError when less than a tenth of the episodes would be left to learn from.
    """

    cameras: Annotated[
        tuple[Annotated[str, text("camera", NAME_PATTERN)], ...], about("whose final images count; empty: all")
    ] = ()  # fmt: skip
    state: Annotated[
        bool,
        flag(
            "also read the final state; off, since how an arm stands when time runs out says how the episode ended"
            " without a look at the object"
        ),
    ] = False
    train: Annotated[
        Literal["head", "all"],
        about("head: the backbone stays as it is, and encodes each image once; all: both learn, for small backbones"),
    ] = "head"
    grid: Annotated[
        int, number("image features are averaged over a grid of so many cells a side", "cells", ge=1, le=32)
    ] = 8  # fmt: skip
    channels: Annotated[int, number("features of a cell that the head keeps", "features", ge=1, le=1024)] = 32
    hidden: Annotated[int, number("width of the head", "features", ge=1, le=4096)] = 64
    dropout: Annotated[float, number("of the head's features while it learns", "share", ge=0, lt=1)] = 0.1
    steps: Annotated[int, number("optimiser steps", "steps", ge=1, le=100_000)] = 300
    batch_size: Annotated[int, number("episodes of one optimiser step", "episodes", ge=1, le=4096)] = 32
    learning_rate: Annotated[float, number("of the head", "1/step", gt=0)] = 1e-3
    backbone_learning_rate: Annotated[float, number("of the backbone, where it learns", "1/step", gt=0)] = 1e-4
    weight_decay: Annotated[float, number("AdamW's", "1/step", ge=0)] = 0.1
    test_share: Annotated[Share, about("held out: AUC and calibration are measured on these")] = 0.25
    calibration_share: Annotated[
        Share, about("held out as well: temperature and threshold are chosen on these")
    ] = 0.25  # fmt: skip
    min_episodes: Annotated[
        int, number("of successes, and of failures: with fewer it learns nothing", "episodes", ge=4)
    ] = 20
    accuracy: Annotated[
        float,
        number(
            "of the calibration episodes at or above the confidence threshold, how many must be judged right; it is the"
            " lowest threshold that gives this", "share", ge=0.5, le=1,
        ),
    ] = 0.95  # fmt: skip

    def __post_init__(self) -> None:
        if self.test_share + self.calibration_share > 0.9:
            raise ValueError(
                f"test_share {self.test_share} and calibration_share {self.calibration_share} leave less than a tenth"
                " of the episodes to learn from: lower one"
            )


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class ModelLabels:
    """Outcomes that a success model proposed, to learn from where an episode has no label. They are no evidence."""

    version: Annotated[
        str, text("success model, by its version: a later one is not taken in its place", "^[0-9a-f]{12}$"),
        Field(examples=["5f0c2a9d71be"]),
    ]  # fmt: skip
    min_confidence: Annotated[
        float,
        number(
            "in the outcome, from which it counts; below the model's own threshold nothing is proposed", "probability",
            ge=0.5, le=1,
        ),
    ] = 0.95  # fmt: skip


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class SuccessModel(Scheduled):
    """Learns from labelled episodes how they end, with a vision backbone and a small head; then proposes labels.

    With a model in place of a backbone it only proposes. Raises ValueError for fields that contradict each other.
    """

    task: Annotated[
        str,
        text("what the model is for: any name", r"^[^\x00-\x1f\x7f]{1,200}$"),
        Field(examples=["PushCube-v1", "wipe-table"]),
    ]
    backbone: Annotated[
        str | None,
        text(
            "folder of an image model that transformers reads, below the server's --exchange folder; or its name on the"
            " Hugging Face hub; null: nothing is learnt, model proposes", _LINE,
        ),
        Field(examples=["backbones/dinov2-small", "facebook/dinov2-small"]),
    ] = None  # fmt: skip
    model: Annotated[
        str | None, text("success model that proposes: version, or latest; null: the one that is learnt", NAME_PATTERN)
    ] = None  # fmt: skip
    seed: Annotated[int, number("of the head's weights and of the order of episodes", "index", ge=0, lt=2**31)] = 0
    kind: Literal["success_model"] = "success_model"
    select: Annotated[
        EpisodeSelection,
        about("which labelled episodes it learns from; labels of a classifier count only if label_sources names them"),
    ] = field(default_factory=EpisodeSelection)
    dataset: Annotated[
        str | None, text("name of a dataset to learn from, in place of select; null: none", NAME_PATTERN)
    ] = None  # fmt: skip
    propose: Annotated[
        EpisodeSelection | None,
        about("for which episodes without a label it proposes one, for a person to accept; null: for none"),
    ] = None
    dry_run: Annotated[bool, flag("count the selected episodes and say how long encoding takes; learn nothing")] = False
    config: Annotated[SuccessConfig, about("how it learns")] = field(default_factory=SuccessConfig)

    def __post_init__(self) -> None:
        if (self.backbone is None) == (self.model is None):
            raise ValueError("give a backbone to learn a success model, or a model that only proposes")
        if self.model is not None and (self.propose is None or self.dry_run or self.dataset is not None):
            raise ValueError(
                "a model learns nothing here: leave out dataset and dry_run, and say with propose for which episodes it"
                " is to propose labels"
            )
        if self.propose is not None and self.propose.label not in ("any", "unlabelled"):
            raise ValueError(f"propose.label '{self.propose.label}': labels are proposed for unlabelled episodes")
        if self.dataset is not None and self.select != EpisodeSelection():
            raise ValueError(f"dataset '{self.dataset}' is a list of its own: leave out select")
        if self.select.label == "unlabelled":
            raise ValueError("select.label 'unlabelled': a success model learns from labelled episodes")
