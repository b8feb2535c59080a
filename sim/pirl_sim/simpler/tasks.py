"""SIMPLER's four Bridge tasks that ManiSkill ships, with their instructions, and all of them as a suite.

Ids: "simpler/PutCarrotOnPlateInScene-v1" and so on, "simpler/bridge".
"""

from __future__ import annotations

from pirl_sim.benchmark_env import SparseSuite, SparseTask

PREFIX = "simpler/"
BRIDGE = (
    SparseTask("PutSpoonOnTableClothInScene-v1", "put the spoon on the towel", 60),
    SparseTask("PutCarrotOnPlateInScene-v1", "put carrot on plate", 60),
    SparseTask("StackGreenCubeOnYellowCubeBakedTexInScene-v1", "stack the green block on the yellow block", 60),
    SparseTask("PutEggplantInBasketScene-v1", "put eggplant into yellow basket", 120),
)
"""ManiSkill's names, sentences and time limits, in the order of SIMPLER's table"""


def suite(suite_id: str) -> SparseSuite:
    """Return the suite, or the suite of one task, of this id. Raises ValueError for an unknown one."""
    name = suite_id.removeprefix(PREFIX)
    chosen = BRIDGE if name == "bridge" else tuple(task for task in BRIDGE if task.name == name)
    if not chosen or name == suite_id:
        known = ", ".join(PREFIX + task.name for task in BRIDGE)
        raise ValueError(f"unknown task '{suite_id}'; known: {PREFIX}bridge, {known}")
    return SparseSuite(suite_id, chosen)
