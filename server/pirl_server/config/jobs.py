"""The kinds of job: one strict frozen dataclass each, for REST, OpenAPI, the command line and the stored record."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.config.fields import CHECKED, Loc, about, flag, number, one_line, quoted, text
from pirl_server.config.interchange import ExportEpisodes, ImportEpisodes
from pirl_server.config.loop import LIST_LENGTH, Loop, LoopCanary, LoopEvaluation
from pirl_server.config.scheduling import Scheduled
from pirl_server.config.success import ModelLabels, SuccessConfig, SuccessModel
from pirl_server.config.training import EpisodesConfig, PpoConfig, SftConfig

_NAME = NAME_PATTERN.strip("^$")
TaskId = Annotated[
    str,
    text("a simulator's task; a slash parts the simulator from it", f"^{_NAME}(/{_NAME})?$"),
    Field(examples=["PushCube-v1", "metaworld/mt10"]),
]
TaskName = Annotated[
    str,
    text("what the result is for: a simulator's task, or for logged episodes any name", r"^[^\x00-\x1f\x7f]{1,200}$"),
    Field(examples=["PushCube-v1", "wipe-table"]),
]
NewInstructions = Annotated[
    bool, flag("learn also sentences that the base was not trained on, and add them to those that it knows")
]
DryRun = Annotated[bool, flag("report on the selected episodes and learn nothing")]
Select = Annotated[EpisodeSelection, about("which logged episodes to learn from")]
FrozenName = Annotated[
    str | None, text("name of a dataset to learn from, in place of select; null: none", NAME_PATTERN)
]  # fmt: skip
Base = Annotated[str, text("version or alias to start from", NAME_PATTERN)]


Seed = Annotated[int, number("of weights, noise and initial states", "index", ge=0, lt=2**31)]


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class _Spec(Scheduled):
    task: TaskId
    seed: Seed = 0


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class FinetuneSim(_Spec):
    """Online RL in the simulator, from a version or an alias."""

    kind: Literal["finetune_sim"] = "finetune_sim"
    base: Base = "production"
    checkpoint_every: Annotated[
        int | None,
        number(
            "after so many updates the run is saved, to be continued after a pause or a crash, and new environments"
            " begin; null: never", "updates", ge=1,
        ),
    ] = 20  # fmt: skip
    config: PpoConfig = field(default_factory=PpoConfig)


def _check_dataset(dataset: str | None, select: EpisodeSelection) -> None:
    if dataset is not None and select != EpisodeSelection():
        raise ValueError(f"dataset '{dataset}' is a list of its own: leave out select")


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class FinetuneEpisodes(Scheduled):
    """Advantage-weighted flow matching on the robots' logged episodes. No simulator is needed.

    Raises ValueError for a dataset together with a selection, and for a success model together with labels that are
    chosen otherwise.
    """

    task: TaskName
    seed: Seed = 0
    kind: Literal["finetune_episodes"] = "finetune_episodes"
    base: Base = "production"
    select: Select = field(default_factory=EpisodeSelection)
    dataset: FrozenName = None
    new_instructions: NewInstructions = False
    dry_run: DryRun = False
    success_model: Annotated[
        ModelLabels | None,
        about("whose open proposals are the outcomes of selected episodes without a label; null: none's"),
    ] = None
    config: EpisodesConfig = field(default_factory=EpisodesConfig)

    def __post_init__(self) -> None:
        _check_dataset(self.dataset, self.select)
        if self.success_model is None:
            return
        if self.dataset is not None:
            raise ValueError(f"dataset '{self.dataset}' has labels of its own: leave out success_model")
        if self.select.label not in ("any", "unlabelled"):
            raise ValueError(f"select.label '{self.select.label}': success_model is for episodes without a label")


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class Sft(Scheduled):
    """Supervised training on the scripted expert, or on successful logged episodes, whose sentences are added to the
    base's; without a base it starts from new weights. Raises ValueError for settings of the other source.
    """  # fmt: skip

    task: TaskName
    seed: Seed = 0
    kind: Literal["sft"] = "sft"
    base: Annotated[
        str | None, text("version or alias to start from; null: new weights", NAME_PATTERN)
    ] = None  # fmt: skip
    select: Select = field(default_factory=EpisodeSelection)
    dataset: FrozenName = None
    dry_run: DryRun = False
    config: SftConfig = field(default_factory=SftConfig)

    def __post_init__(self) -> None:
        _check_dataset(self.dataset, self.select)
        if self.config.source == "expert" and (self.dry_run or self.select != EpisodeSelection()):
            raise ValueError("select and dry_run are for logged episodes: set config.source to 'episodes'")
        if self.config.source == "expert" and self.dataset is not None:
            raise ValueError("a dataset is of logged episodes: set config.source to 'episodes'")
        if self.config.source == "episodes" and self.select.label in ("failure", "unlabelled"):
            raise ValueError(f"select.label '{self.select.label}': successes are imitated; leave it out")


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class Evaluate(_Spec):
    """Success of a version on the initial states that task, seed, first and episodes define.

    Raises ValueError for states beyond the end of the list.
    """

    kind: Literal["evaluate"] = "evaluate"
    version: Annotated[str, text("version or alias to evaluate", NAME_PATTERN)] = "production"
    episodes: Annotated[int, number("initial states, one episode each", "episodes", ge=1, le=LIST_LENGTH)] = 100
    first: Annotated[int, number("position of the first of them in the list", "index", ge=0, lt=LIST_LENGTH)] = 0
    purpose: Annotated[
        Literal["gate", "tuning"],
        about("tuning: its result decides how training continues, so that the gate never counts these states"),
    ] = "gate"

    def __post_init__(self) -> None:
        if self.first + self.episodes > LIST_LENGTH:
            raise ValueError(f"first {self.first} and episodes {self.episodes} go beyond the list of {LIST_LENGTH}")

    @model_validator(mode="before")
    @classmethod
    def _without_config(cls, values: Any) -> Any:
        """Leave out the empty config that an earlier version stored."""
        if isinstance(values, dict) and values.get("config") == {}:
            return {key: value for key, value in values.items() if key != "config"}
        return values


RESUMABLE = frozenset({"finetune_sim", "finetune_episodes", "sft", "evaluate"})
"""kinds of job that another attempt continues from a checkpoint, and that can be paused therefore"""
AnySpec = FinetuneSim | FinetuneEpisodes | Sft | Evaluate | SuccessModel | Loop | ImportEpisodes | ExportEpisodes
JobSpec = Annotated[AnySpec, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(JobSpec)
_FIELDS = {
    ("finetune_sim",): FinetuneSim,
    ("finetune_sim", "config"): PpoConfig,
    ("finetune_episodes",): FinetuneEpisodes,
    ("finetune_episodes", "config"): EpisodesConfig,
    ("finetune_episodes", "select"): EpisodeSelection,
    ("finetune_episodes", "success_model"): ModelLabels,
    ("sft",): Sft,
    ("sft", "config"): SftConfig,
    ("sft", "select"): EpisodeSelection,
    ("evaluate",): Evaluate,
    ("import",): ImportEpisodes,
    ("export",): ExportEpisodes,
    ("export", "select"): EpisodeSelection,
    ("success_model",): SuccessModel,
    ("success_model", "config"): SuccessConfig,
    ("success_model", "select"): EpisodeSelection,
    ("success_model", "propose"): EpisodeSelection,
    ("loop",): Loop,
    ("loop", "config"): EpisodesConfig,
    ("loop", "evaluation"): LoopEvaluation,
    ("loop", "canary"): LoopCanary,
    ("loop", "success_model"): ModelLabels,
}


def parse_spec(raw: Any) -> JobSpec:
    """Check a decoded JSON object. Raises ValueError with one line that names every field at fault and the fix."""
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise ValueError(one_line(error, known_fields, _named)) from None


def known_fields(loc: Loc) -> list[str]:
    """Return the names of the fields beside the one at this location, whose first part is the kind; none elsewhere."""
    kind = _FIELDS.get(tuple(map(str, loc[:-1])))
    return [] if kind is None else [each.name for each in fields(kind)]


def _named(loc: Loc) -> str:
    """Leave out the kind, which comes first."""
    return quoted(loc[1:]) or "the job"
