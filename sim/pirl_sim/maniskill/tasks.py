"""The simulated tasks: ManiSkill id, instructions, and the scene's names of object and goal."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEPS = 48
"""control steps of one episode; below ManiSkill's own 50 so that its time limit is never the one that counts"""


@dataclass(frozen=True)
class Task:
    """One tabletop task of the Panda."""

    id: str
    """ManiSkill's registered name"""
    instructions: tuple[str, ...]
    """sentences that mean this task; an episode's seed picks one"""
    object_name: str
    """the scene's name of the moved object"""
    goal_name: str
    """the scene's name of the goal marker, or of the thing that the goal stands on"""
    goal_visible: bool
    """whether cameras see the goal; if not, a policy without `goal.*` in its state cannot solve the task"""
    goal_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """m, from the position of that to the goal"""
    reach: float = 0.12
    """m: with the tool centre farther from the object's middle than this no finger can touch it"""
    max_steps: int = MAX_STEPS

    def instruction(self, seed: int) -> str:
        """Return the sentence that belongs to `seed`."""
        return self.instructions[seed % len(self.instructions)]


PUSH_CUBE = Task(
    id="PushCube-v1",
    instructions=(
        "push the blue cube onto the target",
        "slide the cube forward until it lies on the red and white disc",
        "move the cube to the round target by pushing it",
        "shove the blue block into the target area",
    ),
    object_name="cube",
    goal_name="goal_region",
    goal_visible=True,
)

PULL_CUBE = Task(
    id="PullCube-v1",
    instructions=(
        "pull the blue cube back onto the target",
        "drag the cube towards the robot until it lies on the disc",
        "draw the blue block into the target area",
    ),
    object_name="cube",
    goal_name="goal_region",
    goal_visible=True,
)

PICK_CUBE = Task(
    id="PickCube-v1",
    instructions=(
        "pick up the red cube and hold it at the goal",
        "grasp the cube, lift it to the goal point and keep still",
        "take the red block and bring it to the goal position",
        "lift the cube to where the goal is",
    ),
    object_name="cube",
    goal_name="goal_site",
    goal_visible=False,
)

STACK_CUBE = Task(
    id="StackCube-v1",
    instructions=(
        "put the red cube on the green cube",
        "stack the red cube on top of the green one and let go",
        "pick up the red block and place it on the green block",
    ),
    object_name="cubeA",
    goal_name="cubeB",
    goal_visible=True,
    goal_offset=(0.0, 0.0, 0.04),
)

LIFT_PEG_UPRIGHT = Task(
    id="LiftPegUpright-v1",
    instructions=(
        "stand the peg up",
        "lift the peg by one end until it stands upright on the table",
        "put the red and blue bar on its end",
    ),
    object_name="peg",
    # It may stand anywhere: the goal is where the peg is.
    goal_name="peg",
    goal_visible=True,
    reach=0.22,
)

TASKS = {known.id: known for known in (PUSH_CUBE, PULL_CUBE, PICK_CUBE, STACK_CUBE, LIFT_PEG_UPRIGHT)}


def task(task_id: str) -> Task:
    """Return the task of this ManiSkill id. Raises ValueError naming the known ones."""
    if task_id not in TASKS:
        raise ValueError(f"unknown task '{task_id}'; known: {', '.join(TASKS)}")
    return TASKS[task_id]
