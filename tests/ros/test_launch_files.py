"""Launch files, read without ROS: arguments, executables and parameter files exist. Executed where `launch` imports."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from patience import completed

from pirl_ros.profile.profile import load_profile

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))
ARGUMENTS = {
    "namespace", "robot", "params_file", "server", "use_sim_time", "log_level", "autostart", "dry_run", "use_cameras",
    "composed",
}  # fmt: skip


def calls(path: Path, function: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function]


def declared(path: Path) -> dict[str, ast.Call]:
    return {ast.literal_eval(call.args[0]): call for call in calls(path, "DeclareLaunchArgument")}


def keyword(call: ast.Call, name: str) -> ast.expr:
    return next(entry.value for entry in call.keywords if entry.arg == name)


def test_both_files_are_there() -> None:
    assert [path.name for path in FILES] == ["policy.launch.py", "sim.launch.py"]


def test_policy_declares_what_a_ros_user_expects() -> None:
    assert set(declared(LAUNCH / "policy.launch.py")) >= ARGUMENTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described_and_has_a_default(path: Path) -> None:
    for name, call in declared(path).items():
        given = {entry.arg for entry in call.keywords}
        assert given >= {"default_value", "description"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_used_is_declared_here_or_in_the_included_file(path: Path) -> None:
    known = set(declared(path)) | set(declared(LAUNCH / "policy.launch.py"))
    used = {ast.literal_eval(call.args[0]) for call in calls(path, "LaunchConfiguration")}
    assert used <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_executable_is_installed(path: Path) -> None:
    cmake = (ROOT / "pirl_ros" / "CMakeLists.txt").read_text()
    nodes = calls(path, "Node")
    assert nodes
    for node in nodes:
        script = ROOT / "pirl_ros" / "scripts" / ast.literal_eval(keyword(node, "executable"))
        assert script.stat().st_mode & 0o111, f"{script} must be executable"
        assert f"scripts/{script.name}" in cmake
        assert (ROOT / "pirl_ros" / "pirl_ros" / "nodes" / f"{script.name}.py").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_parameter_given_is_declared_by_the_nodes(path: Path) -> None:
    folders = (ROOT / "pirl_ros" / "pirl_ros" / name for name in ("nodes", "adapters"))
    source = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    keys = [key for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Dict) for key in node.keys]
    names = {key.value for key in keys if isinstance(key, ast.Constant)} - {"package", "namespace", "output"}
    assert names
    for name in names - {"ros_arguments", "use_sim_time"}:
        assert f'"{name}"' in source, name


def test_the_default_profile_exists_and_loads() -> None:
    robot = ast.literal_eval(keyword(declared(LAUNCH / "policy.launch.py")["robot"], "default_value"))
    load_profile(LAUNCH / "params" / f"{robot}.yaml")


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ros2_launch_accepts_them(path: Path) -> None:
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("`launch_ros` comes with an apt ROS 2 only: no wheel provides it")
    command = ["ros2", "launch", "pirl_ros", path.name, "--show-args"]
    shown = completed(command, check=True, limit_s=60).stdout
    for name in declared(path):
        assert f"'{name}'" in shown
