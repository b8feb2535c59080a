"""The learning loop: collect episodes, learn from them, compare, try on one robot, promote; round after round."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pirl_server.atomic_files import NAME_PATTERN
from pirl_server.config.fields import CHECKED, about, number, text
from pirl_server.config.scheduling import Scheduled
from pirl_server.config.success import ModelLabels
from pirl_server.config.training import EpisodesConfig

_LINE = r"^[^\x00-\x1f\x7f]{1,1000}$"
LIST_LENGTH = 10_000
"""initial states of one list"""
Level = Annotated[float, number("highest probability of the wrong decision", "probability", gt=0, le=0.5)]


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class LoopEvaluation:
    """Both versions on the same initial states in the task's simulator; each round takes new states of the list."""

    list: Annotated[
        int, number("number of the list of initial states; 0 is the one of evaluate jobs", "index", ge=0)
    ] = 1
    episodes: Annotated[int, number("initial states of one round", "episodes", ge=50, le=LIST_LENGTH)] = 200
    margin: Annotated[
        float,
        number("by how much the candidate's success rate may not be lower", "success rate", ge=0, le=0.5),
    ] = 0.05  # fmt: skip
    alpha: Level = 0.05


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class LoopCanary:
    """Which robots try the candidate, and how long."""

    robots: Annotated[
        tuple[Annotated[str, text("robot id", NAME_PATTERN)], ...],
        about("robot ids; empty: those with the most episodes of the round"),
    ] = ()
    count: Annotated[int, number("how many robots, where none are named", "robots", ge=1)] = 1
    episodes: Annotated[
        int,
        number(
            "labelled episodes of the candidate before it may be promoted; without a simulator, least", "episodes", ge=3
        ),
    ] = 20
    alpha: Level = 0.05
    max_hours: Annotated[
        float, number("a candidate that has not been judged by then is withdrawn", "h", gt=0)
    ] = 24.0  # fmt: skip


@dataclass(frozen=True, config=CHECKED, kw_only=True)
class Loop(Scheduled):
    """Unattended learning on the robots that this server serves. It runs in the server and queues the jobs it needs.

    Raises ValueError for rounds that need more initial states than the list has, and for too few episodes in a round.
    """

    task: Annotated[
        str,
        text("what is learnt: a simulator's task, or with evaluation null any name", r"^[^\x00-\x1f\x7f]{1,200}$"),
        Field(examples=["PushCube-v1", "wipe-table"]),
    ]
    kind: Literal["loop"] = "loop"
    seed: Annotated[int, number("of the learning jobs; each round adds 1", "index", ge=0, lt=2**30)] = 0
    instructions: Annotated[
        tuple[Annotated[str, text("sentence", _LINE)], ...],
        about("sentences whose episodes count; empty: all that the production version was trained on"),
    ] = ()
    rounds: Annotated[int, number("most rounds", "rounds", ge=1, le=10_000)] = 10
    episodes_per_round: Annotated[
        int,
        number(
            "new episodes of the production version with a label, or an outcome by success_model, before it learns",
            "episodes",
            ge=1,
        ),
    ] = 50
    learn_episodes: Annotated[
        int | None,
        number("newest labelled episodes, of any version, that a round learns from; null: all", "episodes", ge=1),
    ] = 500
    explore_share: Annotated[
        float,
        number("of the episodes of robots that request no sampling mode, how many explore", "share", ge=0, le=1),
    ] = 0.5  # fmt: skip
    config: Annotated[EpisodesConfig, about("of the finetune_episodes jobs")] = field(default_factory=EpisodesConfig)
    success_model: Annotated[
        ModelLabels | None,
        about(
            "judges episodes without a label before a round learns, which counts and learns its outcomes; canary, watch"
            " and gate never do; null: labels only"
        ),
    ] = None
    evaluation: Annotated[
        LoopEvaluation | None,
        about("null: the task has no simulator, so that labelled episodes of the canary decide, by the robots' gate"),
    ] = field(default_factory=LoopEvaluation)
    canary: Annotated[LoopCanary, about("the candidate's trial on robots")] = field(default_factory=LoopCanary)
    compared_episodes: Annotated[
        int,
        number("newest episodes of the production version that the candidate's are compared with", "episodes", ge=10),
    ] = 100
    watch_episodes: Annotated[
        int, number("after a promotion, episodes in which a worse version is rolled back; 0: none", "episodes", ge=0)
    ] = 50
    max_robot_minutes: Annotated[
        float | None, number("time in episodes of all robots since the start; null: no limit", "min", gt=0)
    ] = None
    patience: Annotated[
        int | None, number("rounds without a promotion after which the loop ends; null: no limit", "rounds", ge=1)
    ] = None  # fmt: skip
    target_success: Annotated[
        float | None,
        number("ends when a round's episodes succeed at this rate; null: never", "success rate", gt=0, le=1),
    ] = None  # fmt: skip
    on_worse: Annotated[
        Literal["continue", "stop"],
        about("what follows when robots did worse with a candidate: the next round, the end"),
    ] = "continue"

    def __post_init__(self) -> None:
        if self.evaluation is not None and self.rounds * self.evaluation.episodes > LIST_LENGTH:
            raise ValueError(
                f"{self.rounds} rounds of evaluation.episodes {self.evaluation.episodes} take more than the"
                f" {LIST_LENGTH} initial states of a list: set rounds to {LIST_LENGTH // self.evaluation.episodes}"
            )
        learnt = min(self.episodes_per_round, self.learn_episodes or self.episodes_per_round)
        if learnt < self.config.min_episodes:
            raise ValueError(
                f"episodes_per_round or learn_episodes, {learnt}, is below config.min_episodes"
                f" {self.config.min_episodes}: no round could learn"
            )
