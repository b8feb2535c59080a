"""package.xml against the code: what is imported is declared, and the stated versions are enough and enforced."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from patience import completed

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "pirl_ros" / "pirl_ros").rglob("*.py")) + sorted((ROOT / "launch").glob("*.py"))
OF_PYTHON = {"numpy": "python3-numpy", "grpc": "python3-grpcio", "google": "python3-protobuf", "yaml": "python3-yaml",
             "cv2": "python3-opencv"}  # fmt: skip
OWN = {"pirl_ros", "pirl_contract"}
BY_NAME = {"control_msgs", "cv2"}
"""imported by name at run time, where a profile needs them"""
CONTRACT = {"grpc", "google"}
"""imported by the contract, which this package installs"""


def declared() -> dict[str, str]:
    package = ElementTree.parse(ROOT / "pirl_ros" / "package.xml").getroot()
    return {entry.text or "": entry.get("version_gte", "") for entry in package.iter("exec_depend")}


def imported() -> set[str]:
    names = set[str]()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    return names - set(sys.stdlib_module_names) - OWN


def test_what_is_imported_is_declared_and_nothing_else() -> None:
    wanted = {OF_PYTHON.get(name, name) for name in imported() | BY_NAME | CONTRACT}
    # Its service is used by users and tests, not by the nodes.
    assert set(declared()) - {"lifecycle_msgs"} == wanted


def test_the_versions_are_those_of_jazzys_ubuntu() -> None:
    versions = {name: version for name, version in declared().items() if version}
    assert versions == {"python3-numpy": "1.26.4", "python3-grpcio": "1.51.1", "python3-protobuf": "3.21.12"}


def test_a_protobuf_that_is_too_old_is_named_with_the_fix(tmp_path: Path) -> None:
    """As Ubuntu 22.04's: no `builder` in google.protobuf.internal."""
    for package in ("google", "google/protobuf", "google/protobuf/internal"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")

    def imports(*paths: Path) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, [*paths, ROOT / "pirl_ros", ROOT / "msg"]))
        command = [sys.executable, "-c", "import pirl_ros.nodes"]
        return completed(command, 30, env=os.environ | {"PYTHONPATH": path})

    assert imports().returncode == 0
    failed = imports(tmp_path)
    assert failed.returncode == 1
    assert 'pip install "protobuf>=4.21.12"' in failed.stderr.splitlines()[-1]
