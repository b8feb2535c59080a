"""JSON schemas of episodes, their labels, and datasets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pirl_server.api.described import Described
from pirl_server.api.schemas import Damaged
from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.datasets import Dataset
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.proposals import Proposal


class ProposalView(Described):
    """A label that a success model proposes; it counts for nothing until a person accepts it."""

    success: bool
    """outcome that is proposed"""
    probability: float
    """of success, calibrated on episodes that the model did not learn from"""
    model: str
    """version of the success model"""
    job: str
    """that proposed it; empty: a command"""
    state: Literal["open", "accepted", "rejected"]
    """accepted: the episode was given a label"""
    author: str
    """who decided last; empty: not decided yet"""
    at: str
    """ISO 8601, UTC: when it was proposed, or decided"""


class EpisodeView(Described):
    """One published episode; `path` is its Zarr group, relative to the store."""

    id: str
    """32 hexadecimal digits"""
    robot_id: str
    """robot that it was recorded on"""
    created: str
    """ISO 8601, UTC: when it was published"""
    instruction: str
    """the sentence that the policy was given"""
    success: bool | None
    """newest label; null: unlabelled"""
    label_source: str
    """operator, sim or classifier; empty: unlabelled"""
    end_reason: str
    """success, time_limit, operator, takeover or fault"""
    sampler: str
    """flow_sde: has log-probabilities to learn from; ode: deterministic"""
    contract_hash: str
    """contract of robot and policy"""
    policy_versions: list[str]
    """in order of appearance"""
    calls: int
    """policy calls"""
    steps: int
    """executed control steps"""
    path: str
    """of the Zarr group, relative to the store"""
    dry_run: bool
    """no action reached an arm: not used for training"""
    targets: int | None
    """steps that may be learnt; null: recorded before they were counted"""
    human_steps: int | None
    """of these, those that a human drove; null as above"""
    label_note: str
    """of the newest label that was given after publication"""
    label_author: str
    """who gave it; empty: not known"""
    labelled: str
    """ISO 8601, UTC: when; empty: with the episode, or never"""
    label_count: int
    """labels given after publication, those that were undone included"""
    bytes: int
    """of all its files"""
    etag: str
    """for If-Match: changes with each label"""
    proposal: ProposalView | None
    """newest label that a success model proposed; null: none"""

    @classmethod
    def of(cls, found: EpisodeEntry, proposal: Proposal | None) -> EpisodeView:
        """Show an entry of the index, and what is proposed for it."""
        beside = {
            "label_note": found.note, "label_author": found.author, "labelled": found.labelled,
            "label_count": found.label_count, "bytes": found.size, "etag": found.etag,
            "proposal": None if proposal is None else ProposalView.model_validate(vars(proposal)),
        }  # fmt: skip
        return cls.model_validate(vars(found.summary) | beside)


class EpisodePage(Described):
    """Episodes, newest first; ask for the next page with `cursor=next_cursor`, or `after=last_id`."""

    data: list[EpisodeView]
    """the episodes of this page"""
    first_id: str | None
    """of this page; null for an empty one"""
    last_id: str | None
    """of this page: `after` of the next one; null for an empty one"""
    has_more: bool
    """whether there is a next page"""
    next_cursor: str | None
    """`cursor` of the next page; null: there is none"""
    damaged: list[Damaged] = Field(default=[], description="damaged episodes found since the server started")


class ChannelView(Described):
    """One entry of a vector, over the steps that are returned."""

    name: str
    """as the contract calls it"""
    unit: str
    """of the values"""
    low: float | None
    """limit of the contract; null: none"""
    high: float | None
    """limit of the contract; null: none"""
    values: list[float | None]
    """one per step that is returned, to six digits; null: not a number, or no action of the policy"""


class RunView(Described):
    """Steps in a row that one control source drove."""

    source: str
    """policy, human or hold"""
    first: int
    """its first step"""
    after: int
    """the step after its last one"""


class EpisodeSteps(Described):
    """Every n-th executed step of an episode."""

    steps: int
    """of the episode"""
    stride: int
    """n"""
    rate_hz: float
    """of control"""
    step: list[int]
    """positions of the steps that are returned"""
    time_s: list[float]
    """of each, since the first; by the clock of the robot, or by the rate where that is not known"""
    state: list[ChannelView]
    """after the step"""
    executed: list[ChannelView]
    """the action that was executed"""
    commanded: list[ChannelView]
    """the action of the policy's chunk"""
    reward: list[float | None]
    """of each"""
    alterations: list[int]
    """bits of what the robot altered, of each and those left out up to the next: see Alteration of the contract"""
    runs: list[RunView]
    """who drove: all steps, none left out"""
    chunks: list[int]
    """steps with which another chunk of the policy began: all of them, none left out"""
    cameras: list[str]
    """names of the cameras, for `frames`"""


class LabelRequest(Described):
    """How an episode ended."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"success": True, "note": "in the box"}]})

    success: Annotated[bool | None, Field(strict=True)]
    """null takes the label back"""
    source: Literal["operator", "sim", "classifier"] = "operator"
    """who or what judged"""
    note: str = Field(default="", max_length=1000)
    """why"""


class LabelView(Described):
    """One label of an episode."""

    success: bool | None
    """null: taken back"""
    source: str
    """operator, sim or classifier; empty: unlabelled"""
    note: str
    """why"""
    author: str
    """who gave it; empty: not known"""
    at: str
    """ISO 8601, UTC"""
    undo: bool
    """it takes the label before it back"""


class LabelsView(Described):
    """All labels of an episode, oldest first; the first is the one that it was published with."""

    data: list[LabelView]
    """the labels"""


class DatasetRequest(Described):
    """Which episodes to freeze."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """not taken yet"""
    select: EpisodeSelection = EpisodeSelection()
    """the episodes, as of now"""


class DatasetView(Described):
    """A frozen list of episodes: later labels do not change it."""

    name: str
    """of the dataset: `dataset` of a job"""
    created: str
    """ISO 8601, UTC"""
    author: str
    """who made it"""
    select: EpisodeSelection
    """that it was made with"""
    episodes: int
    """how many"""
    successes: int
    """of them"""
    failures: int
    """of them"""
    sha256: str
    """over id, manifest and label of each"""

    @classmethod
    def of(cls, found: Dataset) -> DatasetView:
        """Count its episodes."""
        outcomes = [each.success for each in found.episodes]
        return cls(
            name=found.name, created=found.created, author=found.author, select=found.selection,
            episodes=len(outcomes), successes=outcomes.count(True), failures=outcomes.count(False), sha256=found.sha256,
        )  # fmt: skip


class FrozenView(Described):
    """One episode of a dataset."""

    id: str
    """32 hexadecimal digits"""
    digest: str
    """SHA-256 of its manifest"""
    success: bool | None
    """label that was frozen with it"""
    label_source: str
    """of that label"""
    created: str
    """ISO 8601, UTC: when the episode was published"""


class DatasetDetail(DatasetView):
    """A dataset with its episodes, and what is no longer as it was frozen."""

    data: list[FrozenView]
    """the episodes"""
    faults: list[str]
    """episodes that are missing or were changed, one line each: a job rejects the dataset"""


class DatasetList(Described):
    """All datasets, by name."""

    data: list[DatasetView]
    """the datasets"""
    first_id: str | None = None
    """of this page; null for an empty one"""
    last_id: str | None = None
    """of this page: `after` of the next one; null for an empty one"""
    has_more: bool = False
    """whether there is a next page"""
    damaged: list[Damaged] = Field(default=[], description="datasets whose files can't be read")
