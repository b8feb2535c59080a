"""What a robot installs stays light, and the committed gRPC stubs are what their source says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from patience import completed

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "rclpy", "mani_skill", "fastapi", "zarr", "sapien", "cv2")
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
missing = []
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        missing.append(error.name or str(error).split()[0])
print(*[name for name in {heavy!r} if name in sys.modules])
print(*sorted(set(missing)))
"""


def imported(package: str, heavy: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Import every module of a package in a fresh interpreter: which heavy modules came along, which were missing."""
    code = IMPORT_ALL.format(package=package, heavy=heavy)
    done = completed([sys.executable, "-c", code], limit_s=120)
    assert done.returncode == 0, done.stderr
    heavy_found, missing = done.stdout.splitlines()
    return set(heavy_found.split()), set(missing.split())


def test_the_contract_brings_numpy_and_grpc_only() -> None:
    assert imported("pirl_contract", (*HEAVY, "numpy", "grpc")) == ({"numpy", "grpc"}, set())


def test_the_simulator_is_imported_without_its_engine_or_torch() -> None:
    assert imported("pirl_sim", HEAVY) == (set(), set())


def test_the_robot_side_never_brings_torch() -> None:
    """Nodes import rclpy where it is installed; generated messages may be absent. Nothing else may be."""
    found, missing = imported("pirl_ros", (*HEAVY, "pirl_server"))
    assert not found & {"torch", "fastapi", "zarr", "mani_skill", "sapien", "pirl_server"}
    assert all(name.endswith("_msgs") or name.split(".")[0] in ("rclpy", "pirl_msgs") for name in missing), missing


def test_committed_stubs_are_those_of_the_proto_file(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is in the test extra")
    command = ["bash", str(ROOT / "docker" / "generate_stubs.sh"), str(tmp_path)]
    done = completed(command, limit_s=120)
    assert done.returncode == 0, done.stderr
    made = sorted(tmp_path.rglob("*.py*"))
    assert [path.name for path in made] == ["policy_pb2.py", "policy_pb2.pyi", "policy_pb2_grpc.py"]
    for path in made:
        committed = ROOT / "msg" / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), f"{committed} is stale: make proto"
