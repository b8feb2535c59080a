"""A suite of tasks that come with stored initial states and nothing but success as reward: LIBERO's and SIMPLER's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SparseTask:
    """One task of another project's benchmark."""

    name: str
    """what stands after the slash of its task id"""
    instruction: str
    """the benchmark's own sentence"""
    max_steps: int
    """control steps of one episode"""


@dataclass(frozen=True)
class SparseSuite:
    """One task or several that a policy must tell apart by their sentences."""

    id: str
    tasks: tuple[SparseTask, ...]

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence per task, in their order."""
        return tuple(task.instruction for task in self.tasks)

    @property
    def max_steps(self) -> int:
        """Control steps of the longest episode of any of them."""
        return max(task.max_steps for task in self.tasks)

    def task_of(self, seed: int) -> SparseTask:
        """Return the task that the episode of `seed` is of: the suite's in turn."""
        return self.tasks[seed % len(self.tasks)]

    def episode_of(self, seed: int) -> int:
        """Return the number of the stored initial state, to be taken modulo how many the task has."""
        return seed // len(self.tasks)
