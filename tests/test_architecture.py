"""What holds the house up: arrows, sizes, places of files, and nothing that runs code on reading."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import completed

ROOT = Path(__file__).parents[1]
TOPS = ("msg", "pirl_ros", "launch", "server", "sim", "tests", "bench")
PACKAGES = ("msg/pirl_contract", "pirl_ros/pirl_ros", "server/pirl_server", "sim/pirl_sim")
SOURCES = sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py") if "_pb2" not in path.name)
MAX_FILE, MAX_ALGORITHM_FILE, MAX_FUNCTION = 450, 120, 60
RUNS_WHAT_IT_READS = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
CALLS_THAT_RUN_WHAT_THEY_READ = ("eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load")


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def too_long(source: str, limit: int) -> list[str]:
    """A file over its limit, and functions over theirs."""
    length, functions = len(source.splitlines()), (ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = [f"{length} lines"] if length > limit else []
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]
    return wrong + [f"{node.name}: {lines_of(node)} lines" for node in nodes if lines_of(node) > MAX_FUNCTION]


def runs_what_it_reads(source: str) -> list[str]:
    """Imports and calls that execute data: pickle and its kin, torch.load, yaml.load, eval, numpy with pickle on."""
    wrong: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            wrong += [name for name in names if name.split(".")[0] in RUNS_WHAT_IT_READS]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            pickles = any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords)
            wrong += [called] if called in CALLS_THAT_RUN_WHAT_THEY_READ or pickles else []
    return wrong


def imported(source: str) -> Iterator[str]:
    """Top-level names of what a module imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def untyped(source: str) -> list[str]:
    """Functions with a parameter or a result of the bare type Any."""
    return [node.name for node in functions(source) if "Any" in map(ast.unparse, annotations(node))]


def functions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    words = node.args
    given = [*words.posonlyargs, *words.args, *words.kwonlyargs, words.vararg, words.kwarg]
    return [each for each in (*(word and word.annotation for word in given), node.returns) if each is not None]


def test_top_level_folders_are_no_packages() -> None:
    """One with an __init__.py would shadow the package inside it."""
    assert list(ROOT.glob("*/__init__.py")) == []


@pytest.mark.parametrize("name", ["package.xml", "setup.py", "setup.cfg"])
def test_the_root_is_no_ros_package(name: str) -> None:
    """colcon would take the checkout for one package and not look inside."""
    assert not (ROOT / name).exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_test_files_have_names_of_their_own() -> None:
    """pytest's importlib mode needs no packages, people need to tell reports apart."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("check", [runs_what_it_reads, lambda source: too_long(source, MAX_FILE)], ids=["safe", "size"])
def test_every_file(check: Callable[[str], list[str]]) -> None:
    assert len(SOURCES) > 150
    assert {path.name: wrong for path in SOURCES if (wrong := check(path.read_text()))} == {}


def test_the_paper_fits_its_screens_and_imports_torch_only() -> None:
    allowed = {"__future__", "math", "typing", "collections.abc", "dataclasses", "torch", "torch.nn.functional"}
    files = sorted((ROOT / "server/pirl_server/algorithm").glob("*.py"))
    assert len(files) > 6
    for path in files:
        source = path.read_text()
        ours = {name for name in imported(source) if name.startswith("pirl_server.algorithm")}
        assert too_long(source, MAX_ALGORITHM_FILE) == [], path.name
        assert set(imported(source)) - ours <= allowed, path.name


@pytest.mark.parametrize("folder", ["serving", "rpc"])
def test_requests_and_replies_have_their_generated_types(folder: str) -> None:
    """At most 3 of 100 functions take or return a bare Any."""
    sources = [path.read_text() for path in sorted((ROOT / "server/pirl_server" / folder).glob("*.py"))]
    found, total = [name for source in sources for name in untyped(source)], sum(map(len, map(functions, sources)))
    assert len(found) <= 0.03 * total, found


def test_a_bare_any_is_noticed() -> None:
    source = "def f(a: Any, *b: int) -> list[Any]: ...\nasync def g(*, c: int) -> Any: ...\ndef h(a: pb.Image): ..."
    assert (untyped(source), len(functions(source))) == (["f", "g"], 3)


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "import yaml\nyaml.load('x')",
     "eval('1')", "import numpy as np\nnp.load('x', allow_pickle=True)"],
)  # fmt: skip
def test_a_reader_that_runs_code_is_noticed(source: str) -> None:
    assert runs_what_it_reads(source)


def test_a_long_function_is_noticed() -> None:
    source = "def f():\n" + "    pass\n" * 60
    assert too_long(source, MAX_FILE) == ["f: 61 lines"]
    assert too_long(source, 60) == ["61 lines", "f: 61 lines"]


def test_safe_names_are_let_through() -> None:
    assert runs_what_it_reads("model.eval()\nast.literal_eval('1')\nyaml.safe_load('x')") == []


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir=None))"
    return completed([sys.executable, "-c", code], cwd=folder, limit_s=120)


def test_the_arrows_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_a_reversed_arrow_is_noticed(tmp_path: Path) -> None:
    """Our own contracts over four packages of one line each, in which the contract reaches for the server."""
    config = (ROOT / "pyproject.toml").read_text()
    tool = config[config.index("[tool.importlinter]") : config.index("[[tool.importlinter.contracts]]")]
    first = config[config.index("[[tool.importlinter.contracts]]") :].split("[[tool.importlinter.contracts]]")[1]
    (tmp_path / "pyproject.toml").write_text(f"{tool}[[tool.importlinter.contracts]]{first}")
    for package in ("pirl_contract", "pirl_ros", "pirl_server", "pirl_sim"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    assert lint_imports(tmp_path).returncode == 0
    (tmp_path / "pirl_contract" / "schema.py").write_text("import pirl_server\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert "pirl_contract.schema -> pirl_server" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pirl_server.app", ("mani_skill", "sapien", "gymnasium", "rclpy")),
        ("pirl_server.job_main", ("fastapi", "uvicorn", "mani_skill", "sapien", "rclpy")),
    ],
)
def test_a_process_loads_only_its_half(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = completed([sys.executable, "-W", "ignore", "-c", code], limit_s=120)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
