"""What the arm's kinematics cost here and in the libraries for it: per call, to import, and on the disk.

    python bench/kinematics.py [--urdf FILE --tip LINK] [--json]

Libraries that are not installed are left out: `pip install pin yourdfpy pytorch-kinematics`, in a venv of their own.
Times are medians over rounds in which each takes its turn, as a ratio over ours; one CPU thread. Pinocchio's inverse is
our iteration on its Jacobian: it has none of its own.

    python bench/kinematics.py --inverse

Poses that each way of damping solves, for the shipped FR3: from 1.5 rad beside them, and with three joints at limits.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pirl_ros.control import kinematics
from pirl_ros.control.kinematics import Array, Chain
from pirl_ros.description.arm import Arm, find_arm
from pirl_ros.description.urdf import read_urdf
from pirl_ros.profile.profile import load_profile

# What each brings along of its own; numpy and torch are not counted.
LIBRARIES = {
    "pinocchio": [
        "pin", "libpinocchio", "libcoal", "coal", "eigenpy", "cmeel", "cmeel-assimp", "cmeel-boost", "cmeel-octomap",
        "cmeel-qhull", "cmeel-tinyxml2", "cmeel-urdfdom", "cmeel-zlib", "cmeel-console-bridge",
    ],
    "yourdfpy": ["yourdfpy", "trimesh", "lxml", "networkx", "scipy", "shapely"],
    "pytorch_kinematics": ["pytorch-kinematics", "arm-pytorch-utilities"],
}  # fmt: skip
POSES, ROUNDS = 60, 15
Call = Callable[[Array], Any]


def pinocchio_calls(text: str, arm: Arm, low: Array, high: Array) -> dict[str, Call]:
    """Forward, Jacobian and inverse on the same joints, the others locked at 0."""
    import pinocchio as pin

    whole = pin.buildModelFromXML(text)
    names = [joint.name for joint in arm.joints]
    locked = [whole.getJointId(name) for name in list(whole.names)[1:] if name not in names]
    model = pin.buildReducedModel(whole, locked, pin.neutral(whole))
    data, tip = model.createData(), model.getFrameId(arm.tip)

    def forward(joints: Array) -> Any:
        pin.framesForwardKinematics(model, data, joints)
        return data.oMf[tip].translation, data.oMf[tip].rotation

    def jacobian(joints: Array) -> Any:
        found = pin.computeFrameJacobian(model, data, joints, tip, pin.LOCAL_WORLD_ALIGNED)
        return found, *forward(joints)

    class Fast(Chain):
        def jacobian(self, joints: Array) -> tuple[Array, Array, Array]:
            return jacobian(joints)  # type: ignore[no-any-return]

    chain = Chain.from_table(arm.kinematics)
    fast = Fast(chain.origins, chain.tool, chain.prismatic)
    return {"forward": forward, "jacobian": jacobian, "inverse": inverse_of(fast, chain, low, high)}


def inverse_of(solver: Chain, chain: Chain, low: Array, high: Array) -> Call:
    """Solve for the pose of given joints, from 0.05 rad beside them."""
    return lambda joints: solver.inverse(*chain.forward(joints), np.clip(joints + 0.05, low, high), low, high)


def other_calls(text: str, arm: Arm) -> dict[str, dict[str, Call]]:
    """Forward kinematics of the libraries in Python."""
    found: dict[str, dict[str, Call]] = {}
    names = [joint.name for joint in arm.joints]
    if importlib.util.find_spec("yourdfpy"):
        import yourdfpy

        robot = yourdfpy.URDF.load(io.BytesIO(text.encode()), load_meshes=False)

        def by_name(joints: Array) -> Any:
            robot.update_cfg(dict(zip(names, joints)))
            return robot.get_transform(arm.tip)

        found["yourdfpy"] = {"forward": by_name}
    if importlib.util.find_spec("pytorch_kinematics"):
        import pytorch_kinematics
        import torch

        serial = pytorch_kinematics.build_serial_chain_from_urdf(text.encode(), arm.tip).to(dtype=torch.float64)
        found["pytorch_kinematics"] = {
            "forward": lambda joints: serial.forward_kinematics(torch.from_numpy(joints[None])),
            "jacobian": lambda joints: serial.jacobian(torch.from_numpy(joints[None])),
        }
    return found


def ratios(ours: dict[str, Call], theirs: dict[str, Call], poses: Array) -> dict[str, float]:
    """Time of their call over ours."""

    def timed(call: Call) -> float:
        start = time.process_time()
        for joints in poses:
            call(joints)
        return time.process_time() - start

    return {
        name: round(median(timed(call) / timed(ours[name]) for _ in range(ROUNDS)), 3) for name, call in theirs.items()
    }


def megabytes(names: list[str]) -> float:
    """Installed size of distributions in MB."""
    total = 0
    for name in names:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            continue
        total += sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file())
    return round(total / 1e6, 1)


def import_seconds(module: str) -> float:
    """Median of three fresh interpreters, numpy already loaded."""
    code = f"import numpy, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    return round(median(float(run.stdout.split()[-1]) for run in runs), 3)


def main() -> None:
    """Print one line per library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--urdf", help="URDF of the arm (default: ManiSkill's Panda)")
    parser.add_argument("--tip", default="panda_hand_tcp")
    parser.add_argument("--inverse", action="store_true", help="compare ways of damping instead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.inverse:
        return print(json.dumps(solved(), indent=2))
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    text = Path(options.urdf or panda()).read_text()
    arm = find_arm(read_urdf(text), options.tip, None, ["panda_finger_joint1"] if options.urdf is None else [], {})
    low, high = (np.array([getattr(joint, end) for joint in arm.joints]) for end in ("low", "high"))
    poses = np.random.default_rng(0).uniform(low, high, (POSES, len(low)))
    chain = Chain.from_table(arm.kinematics)
    ours = {"forward": chain.forward, "jacobian": chain.jacobian, "inverse": inverse_of(chain, chain, low, high)}
    calls = other_calls(text, arm)
    if importlib.util.find_spec("pinocchio"):
        calls["pinocchio"] = pinocchio_calls(text, arm, low, high)
    report: dict[str, Any] = {"ours": {"import_s": import_seconds(kinematics.__name__)}}
    for name, theirs in calls.items():
        cost = {"import_s": import_seconds(name), "MB": megabytes(LIBRARIES[name])}
        report[name] = cost | ratios(ours, theirs, poses)
    for name, row in report.items():
        print(json.dumps({name: row}) if options.json else f"{name:20} {row}")


def constant(jacobian: Array, error: Array, _at_low: Array, _at_high: Array) -> Array:
    """Wampler 1986; joints are only clipped to their limits afterwards."""
    return jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)


def by_manipulability(jacobian: Array, error: Array, at_low: Array, at_high: Array) -> Array:
    """Nakamura and Hanafusa 1986: damped below a manipulability of 0.02; joints at a limit are held as ours."""
    free = np.ones(len(at_low))
    while True:
        inner = (jacobian * free) @ jacobian.T
        lack = max(0.0, 1 - float(np.sqrt(max(np.linalg.det(inner), 0.0))) / 0.02)
        damping = (0.1 * lack**2) ** 2 + 1e-6
        step: Array = free * (jacobian.T @ np.linalg.solve(inner + damping * np.eye(6), error))
        held = (at_low & (step < 0)) | (at_high & (step > 0))
        if not held.any():
            return step
        free = np.where(held, 0.0, free)


def solved() -> dict[str, dict[str, int]]:
    """Poses solved of 150 and of 100."""
    profile = load_profile(Path(__file__).parents[1] / "launch" / "params" / "franka.yaml")
    low, high = (np.array([getattr(joint, end) for joint in profile.arm.joints]) for end in ("low", "high"))
    chain, rng = Chain.from_table(profile.kinematics), np.random.default_rng(0)
    far = rng.uniform(low, high, (150, len(low)))
    starts = np.clip(far + rng.uniform(-1.5, 1.5, far.shape), low, high)
    edge = rng.uniform(low, high, (100, len(low)))
    for joints in edge:
        ends = rng.choice(len(low), 3, replace=False)
        joints[ends] = np.where(rng.random(3) < 0.5, low[ends], high[ends])
    near = np.clip(edge + rng.uniform(-0.3, 0.3, edge.shape), low, high)
    found, ours = {}, kinematics._step
    for name, step in {"ours": ours, "constant, clipped": constant, "by manipulability": by_manipulability}.items():
        kinematics._step = step
        found[name] = {
            key: sum(chain.inverse(*chain.forward(q), s, low, high) is not None for q, s in zip(goals, beside))
            for key, goals, beside in (("far, of 150", far, starts), ("at limits, of 100", edge, near))
        }
    return found


def panda() -> Path:
    """ManiSkill's URDF of the Panda."""
    spec = importlib.util.find_spec("mani_skill")
    if spec is None or spec.origin is None:
        raise SystemExit("mani_skill is not installed: make setup, or give --urdf and --tip")
    return Path(spec.origin).parent / "assets/robots/panda/panda_v2.urdf"


if __name__ == "__main__":
    main()
