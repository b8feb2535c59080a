"""MetaWorld's 50 tasks with their instructions, and its suites of 10 and 50.

Ids: "metaworld/reach-v3" and so on, "metaworld/mt10", "metaworld/mt50". One sentence a task: in a suite it is all that
identifies the task, and no two are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "metaworld/"

MAX_STEPS = 38
"""control steps, 1.9 s; the experts need 10 to 37 on most tasks"""
LONG = 50
_LONG_TASKS = ("bin-picking-v3", "disassemble-v3", "peg-unplug-side-v3", "stick-pull-v3")

SENTENCES = {
    "assembly-v3": "put the round nut over the peg",
    "basketball-v3": "dunk the ball into the basket",
    "bin-picking-v3": "move the cube from one bin into the other bin",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from above",
    "button-press-v3": "press the button on the front of the box",
    "button-press-wall-v3": "reach past the wall and press the button on the front",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the round nut off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door by turning the lock",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door by turning the lock back",
    "hand-insert-v3": "put the hand and the block into the hole",
    "drawer-close-v3": "push the drawer shut",
    "drawer-open-v3": "pull the drawer open",
    "faucet-open-v3": "turn the faucet on",
    "faucet-close-v3": "turn the faucet off",
    "hammer-v3": "hit the nail with the hammer",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "pick-place-wall-v3": "pick up the puck, carry it over the wall to the goal",
    "pick-out-of-hole-v3": "lift the puck out of the hole",
    "pick-place-v3": "pick up the puck and bring it to the goal",
    "plate-slide-v3": "slide the plate into the cabinet",
    "plate-slide-side-v3": "slide the plate sideways into the cabinet",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-back-side-v3": "slide the plate sideways out of the cabinet",
    "peg-insert-side-v3": "insert the peg sideways into the hole",
    "peg-unplug-side-v3": "pull the peg sideways out of the hole",
    "soccer-v3": "kick the soccer ball into the goal",
    "stick-push-v3": "take the stick and push the box with it",
    "stick-pull-v3": "take the stick and pull the box with it",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "push-back-v3": "push the block back to the goal",
    "reach-v3": "move the hand to the goal",
    "reach-wall-v3": "move the hand past the wall to the goal",
    "shelf-place-v3": "put the puck onto the shelf",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
    "window-open-v3": "slide the window open",
    "window-close-v3": "slide the window shut",
}
"""by MetaWorld's name, in its order"""

MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
BY_SENTENCE = {sentence: name for name, sentence in SENTENCES.items()}


@dataclass(frozen=True)
class Suite:
    """One task or several that a policy distinguishes by their instructions."""

    id: str
    tasks: tuple[str, ...]
    """MetaWorld's names"""
    max_steps: int
    """control steps of one episode of any of them"""

    @property
    def instructions(self) -> tuple[str, ...]:
        """One sentence per task, in their order."""
        return tuple(SENTENCES[name] for name in self.tasks)

    def task_of(self, seed: int) -> str:
        """Return the task that the episode of `seed` is of: the suite's in turn."""
        return self.tasks[seed % len(self.tasks)]


def suite(suite_id: str) -> Suite:
    """Return the suite, or the suite of one task, of this id. Raises ValueError for an unknown one."""
    name = suite_id.removeprefix(PREFIX)
    if name == "mt10":
        return Suite(suite_id, MT10, MAX_STEPS)
    if name == "mt50":
        return Suite(suite_id, tuple(SENTENCES), LONG)
    if name not in SENTENCES or name == suite_id:
        raise ValueError(f"unknown task '{suite_id}'; known: {PREFIX}mt10, {PREFIX}mt50, {PREFIX}<one of {_names()}>")
    return Suite(suite_id, (name,), LONG if name in _LONG_TASKS else MAX_STEPS)


def _names() -> str:
    return ", ".join(SENTENCES)
